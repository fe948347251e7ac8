"""The local page to write with the model in a browser.

`answers` answers requests in plain data, after `fields` has checked them, and `turns` lets several readers share the
model. `server` is the thin web server around `answers`; `static` has the page itself. `export` writes the page as
static files, and `worker` then answers in the browser.
"""
