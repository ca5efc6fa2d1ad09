"""The style sheet of a page: one column, light and dark by the reader's choice, legible on paper."""

from __future__ import annotations

__all__ = ["STYLE"]

# The four sources keep their order of lightness without colour; text has a contrast of at least 4.5 on both
# grounds.
STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1c2127; --soft: #5b6570; --line: #d9dee3;
  --raised: #f5f7f9; --before: #98a2ad; --after: #1769aa; --wr: #1769aa; --wc: #6cb2eb; --ar: #b3470b;
  --ac: #f2a65a; --end: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181c; --text: #e7ebef; --soft: #a3adb8;
  --line: #333b43; --raised: #1d2329; --before: #77828d; --after: #5aa9e6; --wr: #3d8fd1; --wc: #a9d5f7;
  --ar: #d9692a; --ac: #f7c491; --end: #ff8a80; } }
@media print { :root { color-scheme: light; --ground: #fff; --text: #000; --soft: #444; --line: #bbb;
  --raised: #fff; --before: #98a2ad; --after: #1769aa; --wr: #1769aa; --wc: #6cb2eb; --ar: #b3470b;
  --ac: #f2a65a; --end: #b3261e; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 3rem; background: var(--ground);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; }
h3 { font-size: .95rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
.soft, figcaption, caption, dt { color: var(--soft); }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0 0; }
dl.facts div { background: var(--raised); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .85rem; }
dl.facts dt { font-size: .85rem; }
dl.facts dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
dl.facts dd.more { font-size: .85rem; font-weight: 400; color: var(--soft); }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--after); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: .85rem; padding-bottom: .35rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: middle; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 7.5rem; max-width: 18rem; overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
.scheme { white-space: nowrap; }
.reason { min-width: 12rem; }
.wide { width: 55%; min-width: 5rem; }
svg.bar { display: block; width: 100%; height: .8rem; background: var(--raised); }
svg.bar + svg.bar { margin-top: 2px; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; margin: 0 0 .75rem; padding: 0;
  font-size: .875rem; }
.legend svg { width: .8rem; height: .8rem; margin-right: .35rem; vertical-align: -.08rem; }
.before { fill: var(--before); } .after { fill: var(--after); }
.wr { fill: var(--wr); } .wc { fill: var(--wc); } .ar { fill: var(--ar); } .ac { fill: var(--ac); }
.cards { display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem .85rem; }
figure { margin: 0 0 .5rem; }
figcaption { font-size: .8rem; }
svg.histogram { display: block; width: 100%; height: 5rem; border-bottom: 1px solid var(--line); }
.count { fill: var(--before); }
.end { stroke: var(--end); stroke-width: 1.5; stroke-dasharray: 4 3; vector-effect: non-scaling-stroke; }
@media screen and (max-width: 36rem) { th, td { padding: .3rem .35rem; } tbody th { min-width: 6.75rem; }
  h1 { font-size: 1.35rem; } dl.facts { grid-template-columns: 1fr 1fr; } dl.facts dd { font-size: 1.1rem; } }
@media print { body { padding: 0; font-size: 11pt; } .scroll { overflow: visible; }
  table { font-size: 7.5pt; } th, td { padding: .2rem .3rem; } tbody th { min-width: 4.5rem; }
  thead .number, .scheme { white-space: normal; } thead { display: table-header-group; }
  dl.facts { grid-template-columns: repeat(4, 1fr); } dl.facts dd { font-size: 1rem; }
  .cards { grid-template-columns: 1fr 1fr; } h2 { break-after: avoid; }
  tr, figure, .card { break-inside: avoid; } }
"""
