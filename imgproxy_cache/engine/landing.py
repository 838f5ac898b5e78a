"""The page at ``/``: what answers here, and a path to try."""

LANDING_PAGE = b"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>imgproxy-cache: embedded engine</title>
<style>body { font: 1.1em/1.5 sans-serif; max-width: 40em; margin: 3em auto; padding: 0 1em }
code { background: #eee; padding: .1em .3em }</style>
<h1>The embedded engine is running</h1>
<p>It answers the URLs of imgproxy for a first run, for tests and for small sites.
In production, run imgproxy itself.</p>
<p>A path to try: <code>/_/resize:fill:300:300/plain/https://example.com/image.jpg@webp</code></p>
</html>
"""
