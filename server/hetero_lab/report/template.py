"""The page's frame: HTML and style, with $names where `page.py` puts what it has made."""

from __future__ import annotations

from string import Template

PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1a1a1a; background: #fff;
  font: 1rem/1.5 system-ui, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.4rem; overflow-wrap: anywhere; }
p, figcaption { max-width: 48rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.9rem 0.2rem 0; text-align: right; vertical-align: top; }
th.text, td.text { text-align: left; overflow-wrap: break-word; max-width: 26rem; }
thead th { border-bottom: 1px solid #1a1a1a; }
tbody tr + tr > * { border-top: 1px solid #e4e4e4; }
.facts th { font-weight: 600; white-space: nowrap; }
figure { margin: 1rem 0 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption, .caption { font-size: 0.875rem; color: #444; margin: 0.4rem 0 0; }
details { margin: 0.6rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
@media print {
  body { margin: 0; max-width: none; font-size: 10pt; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")

SECTION = Template("""\
<section>
<h2>$title</h2>
$body
</section>""")

FIGURE = Template("""\
<figure>
<img alt="$alt" src="data:image/svg+xml;base64,$data">
<figcaption>$caption</figcaption>
</figure>""")

TABLE = Template("""\
<div class="wide">
<table class="$kind">
$head<tbody>
$rows
</tbody>
</table>
</div>$caption""")
