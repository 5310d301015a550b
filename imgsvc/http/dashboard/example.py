"""The example of the dashboard's data in the API document. A test compares it with the models."""

from typing import Any

from ... import __version__
from ...jobs.answer_model import COMPLETED, CREATED, IMAGE_ID, JOB_ID

CHECK = {"status": "healthy", "detail": "a write was committed", "age_seconds": 2.1}
SPAN = {
    "total": 42,
    "completed": 41,
    "failed": 1,
    "avg_processing_time_seconds": 0.41,
    "avg_ready_seconds": 0.52,
}
STEP = {"start": CREATED, "completed": 3, "failed": 0, "avg_ready_seconds": 0.48}
FAILURE = {
    "job_id": JOB_ID,
    "image_id": IMAGE_ID,
    "original_filename": "beach.jpg",
    "status": "failed",
    "error": "The image could not be stored.",
    "error_code": "storage_error",
    "why": "The variants could not be stored.",
    "advice": "The health page has details.",
    "attempts": 3,
    "created_at": CREATED,
    "failed_at": COMPLETED,
    "next_attempt_at": None,
    "can_retry": True,
}

EXAMPLE: dict[str, Any] = {
    "system": {
        "service_name": "imgsvc",
        "version": __version__,
        "uptime_seconds": 93_780.2,
        "uptime_human": "1 d 2 h",
        "timestamp": COMPLETED,
        "resources": {
            "cpu": {"percent": 12.5, "count": 2},
            "memory": {"total_gb": 3.84, "available_gb": 2.91, "used_gb": 0.93, "percent": 24.2},
            "disk_root": {"total_gb": 78.2, "used_gb": 20.1, "free_gb": 58.1, "percent": 25.7},
            "process": {"memory_rss_mb": 92.4, "memory_vms_mb": 640.0, "threads": 12},
        },
    },
    "health": {"status": "healthy", "checks": {"database": CHECK}},
    "database": {
        "status": "healthy",
        "path": "data/imgsvc.db",
        "size_mb": 12.4,
        "connection_ok": True,
        "tables": {"processing_jobs": 1206, "image_upload_events": 6040, "upload_rate_limits": 3},
        "recent_activity": {"last_job_created": CREATED, "last_event_logged": COMPLETED},
    },
    "redis": {"status": "disabled", "connected": False, "info": {}, "queue_lengths": {"celery": 1}},
    "celery": {"status": "healthy", "workers": {"active": 3}, "tasks": {"active": 1}},
    "queue": {
        "previews": 0,
        "renders": 1,
        "retrying": 0,
        "oldest_waiting_seconds": 0.3,
        "waiting": 1,
        "waiting_ten_minutes_ago": 0,
        "grows": False,
    },
    "workers": {
        "status": "healthy",
        "active": 3,
        "tasks": {"active": 1},
        "processes": [
            {
                "name": "render-0",
                "pid": 4711,
                "state": "busy",
                "job_id": JOB_ID,
                "busy_seconds": 0.2,
                "rss_mb": 61.5,
                "jobs_done": 17,
                "restarts": 0,
            }
        ],
    },
    "cluster": {
        "status": "off",
        "detail": "",
        "insecure": False,
        "gateway_cage": "",
        "tickets_out": 0,
        "sent_bytes": 0,
        "received_bytes": 0,
        "machines": [],
    },
    "processing": {
        "jobs_by_status": {"pending": 1, "processing": 1, "retrying": 0, "completed": 1200, "failed": 4},
        "performance": {"last_hour": SPAN, "last_24h": SPAN, "last_7d": SPAN},
        "minutes": [STEP],
        "half_hours": [STEP],
        "hours": [STEP],
        "recent_jobs": [
            {
                "job_id": JOB_ID,
                "image_id": IMAGE_ID,
                "status": "completed",
                "user_id": "alice",
                "bucket": "holiday",
                "original_filename": "beach.jpg",
                "content_length": 2_482_113,
                "created_at": CREATED,
                "began_at": CREATED,
                "completed_at": COMPLETED,
                "ready": ["original", "large", "medium", "thumbnail"],
                "thumbnail_url": f"/api/v1/images/{IMAGE_ID}/direct?size=thumbnail",
                "picture_url": f"/api/v1/images/{IMAGE_ID}/direct?size=original",
            }
        ],
    },
    "storage": {
        "backend": "local",
        "local": {
            "path": "data/storage",
            "disk": {"total_gb": 78.2, "used_gb": 20.1, "free_gb": 58.1, "percent": 25.7},
            "reserve_mb": 256,
        },
        "s3": None,
        "set_aside": {"files": 0, "bytes": 0},
        "total_images": 1200,
    },
    "rate_limits": {
        "users_near_limit": [
            {
                "user_id": "alice",
                "org_id": "default-org",
                "count": 45,
                "limit": 50,
                "window_start": CREATED,
                "percent_used": 90.0,
            }
        ],
        "total_active_windows": 3,
        "max_uploads_per_hour": 50,
    },
    "errors": {
        "recent_failures": [FAILURE],
        "retrying": [],
        "error_summary": {"last_hour": 1, "last_24h": 1, "total": 4},
    },
    "webhooks": [
        {"name": "app", "waiting": 0, "oldest_waiting_seconds": None, "switched_off": False, "overflowed": False}
    ],
    "credentials": {"keys": 2, "open_tickets": 5},
    "event_streams": {"open": 3, "limit": 500},
    "fetches": {"open": 1, "limit": 8},
    "configuration": {"service": {"name": "imgsvc"}},
    "operator": {"signed_in": True, "may_act": True, "can_make_tokens": True, "refused_attempts_last_hour": 0},
}
