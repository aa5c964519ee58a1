"""The page's style sheet: system fonts, light and dark by the reader's setting, plain ink in print."""

STYLE = """
:root {
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d2430; --soft: #5c6675; --rule: #dedbd3;
  --joint: #1f5fbf; --alone: #b4500f; --bare: #8a6a00; --pooled: #2f7d4f; --pooled-dp: #7a4bb0;
  --spent: #1f5fbf; --before: #9dbbe6; --left: #e9e6de;
  --danger: #a3161d; --danger-bg: #fdeeee; --caution: #835800; --caution-bg: #fdf5e1;
  --good: #22673f; --good-bg: #edf7f0;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #14181e; --card: #1b2129; --ink: #e6e9ee; --soft: #a0aab8; --rule: #333c48;
  --joint: #79aef7; --alone: #f0985a; --bare: #d9b84a; --pooled: #71c795; --pooled-dp: #bd98ea;
  --spent: #79aef7; --before: #3f5f8c; --left: #2a323d;
  --danger: #ff9a9a; --danger-bg: #3a1c1f; --caution: #f0cd7a; --caution-bg: #332a16;
  --good: #8fd8ab; --good-bg: #182b20;
} }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: .2rem 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .8rem; }
section { margin-top: 3rem; padding-top: 1.6rem; border-top: 1px solid var(--rule); }
p { margin: 0 0 .8rem; max-width: 46rem; }
.eyebrow, .muted, .remark, figcaption, caption { color: var(--soft); }
.eyebrow { font-size: .85rem; margin: 0; }
.question { font-size: 1.25rem; color: var(--soft); }
.status { display: inline-block; padding: .15rem .7rem; border-radius: 1rem; font-weight: 600;
  font-size: .9rem;
  border: 1px solid currentColor; margin-right: .6rem; }
.status.good { color: var(--good); background: var(--good-bg); }
.status.caution { color: var(--caution); background: var(--caution-bg); }
.status.danger { color: var(--danger); background: var(--danger-bg); }
.headline { font-size: 1.55rem; line-height: 1.3; font-weight: 600; margin-bottom: .6rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .8rem;
  margin: 1.4rem 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: .6rem; padding: .9rem
  1rem;
  display: grid; grid-template-rows: subgrid; grid-row: span 3; row-gap: .1rem; }
.tile .label { font-size: .88rem; line-height: 1.35; }
.tile .big { font-size: 1.9rem; line-height: 1.3; font-weight: 650; font-variant-numeric: tabular-nums;
  }
.tile .remark { font-size: .8rem; line-height: 1.35; }
.box { border-left: 4px solid; border-radius: .3rem; padding: .8rem 1.1rem; margin: 1rem 0; max-width:
  48rem; }
.box strong { display: block; }
.box p { margin: .2rem 0 0; color: var(--ink); }
.box.danger { color: var(--danger); background: var(--danger-bg); }
.box.caution { color: var(--caution); background: var(--caution-bg); }
.box.good { color: var(--good); background: var(--good-bg); }
figure { margin: 1.4rem 0; background: var(--card); border: 1px solid var(--rule); border-radius: .6rem;
  padding: 1rem 1rem .8rem; }
figcaption { font-size: .88rem; margin-top: .4rem; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
svg text { fill: var(--ink); font-size: 12.5px; }
svg .tick, svg .soft { fill: var(--soft); }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2; }
svg .leader { fill: none; stroke-width: 1; opacity: .6; }
svg .joint { stroke: var(--joint); stroke-width: 2.6; } svg text.joint, svg circle.joint { fill:
  var(--joint); }
svg .mean { stroke: var(--joint); stroke-width: 1.4; stroke-dasharray: 2 3; } svg text.mean { fill:
  var(--joint); }
svg .alone { stroke: var(--alone); stroke-dasharray: 9 4; } svg text.alone { fill: var(--alone); }
svg .bare { stroke: var(--bare); stroke-dasharray: 2 4; } svg text.bare { fill: var(--bare); }
svg .pooled { stroke: var(--pooled); stroke-dasharray: 14 4; } svg text.pooled { fill: var(--pooled); }
svg .pooled-dp { stroke: var(--pooled-dp); stroke-dasharray: 10 3 2 3; }
svg text.pooled-dp { fill: var(--pooled-dp); }
svg .personal { stroke: var(--good); stroke-dasharray: 6 2 2 2; } svg text.personal { fill: var(--good); }
svg .local-noise { stroke: var(--danger); stroke-dasharray: 4 4; } svg text.local-noise { fill: var(--danger); }
svg text, svg circle { stroke: none !important; }
svg .spent { fill: var(--spent); } svg .before { fill: var(--before); } svg .left { fill: var(--left); }
svg .band { fill: var(--joint); opacity: .14; stroke: none; }
svg .whisker { stroke: var(--joint); stroke-width: 1.5; opacity: .6; }
svg .took { fill: var(--before); } svg .away { fill: var(--danger); } svg .lost { fill: var(--left); }
svg .floor { stroke: var(--danger); stroke-width: 1.5; }
svg .whole { stroke-dasharray: none; } svg .ahead { stroke-dasharray: 3 4; }
.tabs { display: flex; position: sticky; top: 0; z-index: 1; margin-top: 1.6rem; background: var(--paper);
  border-bottom: 1px solid var(--rule); }
.tabs a { padding: .7rem 1rem; color: var(--soft); text-decoration: none; font-weight: 600;
  border-bottom: 3px solid transparent; }
.tabs a:hover, .index a:hover { color: var(--ink); }
.view, .view section { scroll-margin-top: 4.6rem; }
.view { margin-top: 2rem; } .view h2.who { font-size: 1.55rem; margin-bottom: .1rem; }
.view section { margin-top: 2.4rem; }
td a, th a { color: var(--joint); }
h3 { font-size: 1rem; margin: 1.1rem 0 .3rem; } ul { margin: 0 0 .8rem; padding-left: 1.2rem; max-width: 46rem; }
.index { display: flex; flex-wrap: wrap; gap: .4rem .5rem; margin-top: 1rem; }
.index a { padding: .15rem .7rem; border: 1px solid var(--rule); border-radius: 1rem; color: var(--ink);
  background: var(--card); text-decoration: none; font-size: .9rem; }
.strip { overflow-x: auto; }
.banner { margin: 1rem 0; padding: 1.2rem 1.4rem; border-radius: .6rem; background: #a3161d; color: #fff; }
.banner strong { display: block; font-size: 1.35rem; line-height: 1.3; } .banner p { margin: .5rem 0 0; }
.banner dt { color: #fff; } .banner dl { margin-bottom: 0; }
@supports selector(:has(a)) { @media screen {
  .view { display: none; }
  .view:target, .view:has(:target) { display: block; }
  .lab:not(:target), .view:has(.lab:target) .all-labs, .view:not(:has(.lab:target)) .index { display: none; }
  main:not(:has(.view:target, .view :target)) #coordinator { display: block; }
  main:has(#coordinator:target, #coordinator :target) .tabs a:nth-child(1),
  main:has(#officer:target, #officer :target) .tabs a:nth-child(2),
  main:has(#operator:target, #operator :target) .tabs a:nth-child(3),
  main:not(:has(.view:target, .view :target)) .tabs a:nth-child(1) { color: var(--ink);
    border-bottom-color: var(--joint); }
} }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem;
  align-items: start; }
.plots figure { margin: 0; } #time .plots figure { max-width: 30rem; }
.plots svg text { font-size: 13px; } .plots svg text.end { font-weight: 700; }
.plots svg .run { stroke-width: 1; opacity: .45; stroke-dasharray: none; }
.plots + p { margin-top: 1rem; }
#results tbody th, #settings td { overflow-wrap: normal; }
@media (min-width: 60rem) { #results tbody th { min-width: 15rem; } }
.key { list-style: none; margin: 1rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; }
.key li { display: flex; align-items: center; gap: .5rem; } .key svg { width: 34px; flex: none; }
svg .c0 { stroke: var(--joint); } svg text.c0, svg circle.c0 { fill: var(--joint); }
svg .c1 { stroke: var(--alone); stroke-dasharray: 9 4; } svg text.c1, svg circle.c1 { fill: var(--alone); }
svg .c2 { stroke: var(--pooled); stroke-dasharray: 2 3; } svg text.c2, svg circle.c2 { fill: var(--pooled); }
svg .c3 { stroke: var(--pooled-dp); stroke-dasharray: 10 3 2 3; }
svg text.c3, svg circle.c3 { fill: var(--pooled-dp); }
svg .c4 { stroke: var(--bare); stroke-dasharray: 14 4; } svg text.c4, svg circle.c4 { fill: var(--bare); }
svg .c5 { stroke: var(--danger); stroke-dasharray: 4 4; } svg text.c5, svg circle.c5 { fill: var(--danger); }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: .88rem; padding-bottom: .5rem; }
th, td { padding: .42rem .7rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align:
  top; }
thead th { font-size: .82rem; line-height: 1.3; color: var(--soft); vertical-align: bottom;
  overflow-wrap: normal; }
tbody th { font-weight: 600; min-width: 6rem; }
.number { text-align: right; }
td.number { white-space: nowrap; overflow-wrap: normal; }
td .remark { display: block; font-size: .8rem; line-height: 1.3; }
.worth { font-weight: 650; white-space: nowrap; }
.worth.yes { color: var(--good); } .worth.no { color: var(--danger); } .worth.as-well { color:
  var(--caution); }
dl { margin: 1rem 0; }
dl div { display: grid; grid-template-columns: 13rem 1fr; gap: 1rem; padding: .35rem 0;
  border-bottom: 1px solid var(--rule); }
dt { color: var(--soft); } dd { margin: 0; }
code, pre { font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; padding: 1rem;
  overflow-x: auto;
  white-space: pre-wrap; }
sup { line-height: 0; }
summary { cursor: pointer; font-weight: 600; padding: .4rem 0; }
@media (max-width: 40rem) { th, td { padding: .4rem .45rem; } }
@media (max-width: 40rem) { .tabs a { padding: .6rem .5rem; font-size: .85rem; }
  #time .plots figure { max-width: none; } td, th { overflow-wrap: break-word; }
  figure { overflow-x: auto; } figure > svg, .strip > svg { min-width: 44rem; } .plots figure > svg { min-width: 0; } }
@media (max-width: 40rem) { dl div { grid-template-columns: 1fr; gap: 0; } main { padding: 1.5rem 1rem
  3rem; } }
@media print {
    :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #bbb; --joint: #1f5fbf;
    --alone: #b4500f;
        --bare: #8a6a00; --pooled: #2f7d4f; --pooled-dp: #7a4bb0; --spent: #1f5fbf; --before: #9dbbe6;
      --left: #e9e6de;
        --danger: #a3161d; --danger-bg: #fff; --caution: #835800; --caution-bg: #fff; --good: #22673f;
      --good-bg: #fff; }
  .tabs, .index { display: none; } a { color: inherit; text-decoration: none; } .view + .view { break-before: page; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  figure, .tile, .box, tr, dl div { break-inside: avoid; } h2 { break-after: avoid; }
  svg .spent, svg .before, svg .left { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  section { margin-top: 1.6rem; padding-top: 1rem; } table { font-size: 8.5pt; }
}
"""
