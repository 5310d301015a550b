"""How all pages look: the dashboard's, /docs, /errors, and the page at /.

Pages are rendered here on the server: the first paint needs no script, and a test of a page's words needs no browser.
There is no framework and no build step: `html.el` escapes by itself and is shorter than a template engine would be.

- `html.py`: `el("p", "text", class_="muted")` makes an element. Children are escaped unless `el` made them.
  `foreign(text)` is for every word of a client (names, buckets, metadata, users, traces): it also isolates the
  direction of its text.
- `components.py`: cards, facts, tables, states, times, empty places, filters, pages of a list.
- `frame.py`: `await page(request, title, *content, here="jobs")` is a whole page with header, navigation, policy.
- `static/theme.css`: colours, sizes, spaces, in light and dark. No other file names a colour or a size.
- `static/base.css`: the elements, the frame and the components. What one page alone has goes into a file of its own.
- `static/frame.js`: on every page: signing out, copying. Scripts are modules, and only add to what is there already.

To add a page of the dashboard:
1. a handler in `http/dashboard/`, declared with `@operation(..., answers=PAGES)` and below it `@operators_page` (from
   `http/dashboard/guard.py`), which answers with the sign-in page to who is not signed in;
2. its route in `service/routes.py`, its name in `frame.NAVIGATION` if the header leads there, then `./run docs`;
3. its scripts and styles in `http/dashboard/static/`: `page(..., scripts=("images.js",), styles=("images.css",))`;
4. its line in `PAGES` of `tests/support/every_page.py`: from then on it is tested for width, contrast, keyboard, policy
   and hostile words, in light and dark.

Addresses are relative to `root_of(request)`, so that pages work behind any path prefix.
"""
