// Shows the document whose address the page names; all addresses are relative, so that any path prefix works.
"use strict";
const SCHEMES = ["components", "securitySchemes"];

// To resolve a part, Swagger UI goes through the whole document for seconds. The schemes refer to nothing.
const schemesAsWritten = () => ({
  statePlugins: {
    spec: {
      wrapActions: {
        requestResolvedSubtree: (resolve, { specActions, specSelectors }) => (path) =>
          path.join() === SCHEMES.join()
            ? specActions.updateResolvedSubtree(path, specSelectors.specJson().getIn(path).toJS())
            : resolve(path),
      },
    },
  },
});

SwaggerUIBundle({
  url: new URL(document.getElementById("docs").dataset.document, location.href).href,
  dom_id: "#docs",
  plugins: [schemesAsWritten],
  deepLinking: true,
  displayRequestDuration: true,
  filter: false,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
});
