-- The operator's sessions in browsers, which survive a restart.

CREATE TABLE operator_sessions (
  digest      BLOB PRIMARY KEY,                        -- SHA-256 of the cookie's 256 random bits
  credentials BLOB NOT NULL,                           -- digest of the operator token and the instance: a new one of either ends the session
  subject     TEXT,                                    -- `sub` of single sign-on; NULL: the operator token
  opened_at   TEXT NOT NULL,
  expires_at  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
