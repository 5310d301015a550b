// Shows the document whose address the page names; all addresses are relative, so that any path prefix works.
"use strict";
SwaggerUIBundle({
  url: new URL(document.getElementById("docs").dataset.document, location.href).href,
  dom_id: "#docs",
  deepLinking: true,
  displayRequestDuration: true,
  filter: false,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
