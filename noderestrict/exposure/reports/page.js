// Shows the paths of the node that is chosen, and filters nodes. Texts are set as text, never as HTML.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const MOST_DRAWN = 6;
const MOST_DRAWN_NARROW = 3;
const MOST_LISTED = 200;

const title = (index) => {
  const [kind, namespace, name] = data.things[index];
  const [one, every] = data.titles[kind];
  if (name) return `${one} ${namespace ? namespace + "/" : ""}${name}`;
  return namespace ? `${every} in namespace ${namespace}` : every;
};

const element = (name, attributes, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

const drawn = (name, attributes, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

// Of all objects of a kind, the step to those of a namespace says nothing more.
const told = (step) => step[2] !== "member" || data.things[step[1]][2] !== "";

const line = (step) => {
  const [, end, , , requests, at] = step;
  const how = data.texts[at];
  if (requests.length) {
    return `${requests.map((one) => data.texts[one]).join(" and ")}: ${title(end)}`;
  }
  return how ? `${title(end)} (${how})` : title(end);
};

const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

// Each path has a lane of its own, but for what an earlier one has. How far along a thing is, the
// longest path to it decides.
const placed = (ways) => {
  const depth = new Map();
  const lane = new Map();
  const edges = new Map();
  ways.forEach((way, at) => {
    const steps = way[3].map((index) => data.steps[index]);
    let before = steps[0][0];
    if (!depth.has(before)) depth.set(before, 0);
    if (!lane.has(before)) lane.set(before, at);
    for (const step of steps.filter(told)) {
      edges.set(`${before}>${step[1]}`, [before, step[1], step[4].length > 0]);
      if (!lane.has(step[1])) lane.set(step[1], at);
      if (!depth.has(step[1])) depth.set(step[1], 0);
      before = step[1];
    }
  });
  // A path never meets the same thing twice, but two may meet things in another order.
  for (let round = 0; round < depth.size; round += 1) {
    let changed = false;
    for (const [start, end] of edges.values()) {
      if (depth.get(end) <= depth.get(start) && depth.get(start) + 1 < depth.size) {
        depth.set(end, depth.get(start) + 1);
        changed = true;
      }
    }
    if (!changed) break;
  }
  const columns = [...new Set(depth.values())].sort((one, other) => one - other);
  const lanes = [...new Set(lane.values())].sort((one, other) => one - other);
  const place = new Map();
  for (const [thing, at] of depth) {
    place.set(thing, [columns.indexOf(at), lanes.indexOf(lane.get(thing))]);
  }
  return [place, [...edges.values()], columns.length, lanes.length];
};

const drawing = (ways, wide) => {
  const [cells, edges, columns, lanes] = placed(ways);
  const width = 146;
  const height = 46;
  const along = wide ? width + 24 : height + 30;
  const across = wide ? height + 16 : width + 16;
  const place = new Map();
  for (const [thing, [column, lane]] of cells) {
    const [start, offset] = [column * along + 8, lane * across + 8];
    place.set(thing, wide ? [start, offset] : [offset, start]);
  }
  const long = columns * along;
  const broad = lanes * across;
  const [w, h] = wide ? [long, broad] : [broad, long];
  const svg = drawn("svg", {
    viewBox: `0 0 ${w} ${h}`, "aria-hidden": "true",
    style: `width: 100%; max-width: ${w}px; min-width: ${wide ? Math.min(w, 900) : Math.round(0.9 * w)}px`,
  });
  const arrow = drawn("marker", {
    id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7,
    orient: "auto-start-reverse",
  });
  arrow.append(drawn("path", { d: "M0 0L8 4L0 8z" }));
  svg.append(drawn("defs", {}, arrow));
  for (const [start, end, isRight] of edges) {
    const [x, y] = place.get(start);
    const [u, v] = place.get(end);
    const [a, b, c, d] = wide
      ? [x + width, y + height / 2, u, v + height / 2]
      : [x + width / 2, y + height, u + width / 2, v];
    const bend = wide ? `${(a + c) / 2} ${b} ${(a + c) / 2} ${d}` : `${a} ${(b + d) / 2} ${c} ${(b + d) / 2}`;
    svg.append(
      drawn("path", {
        d: `M${a} ${b}C${bend} ${c} ${d}`, "marker-end": "url(#arrow)", class: isRight ? "used" : "",
      }),
    );
  }
  for (const [thing, [x, y]] of place) {
    const [kind, namespace, name] = data.things[thing];
    const [one, every] = data.titles[kind];
    const first = name ? one : every;
    const second = name ? `${namespace ? namespace + "/" : ""}${name}` : namespace;
    const where = kind === "cluster" ? "end" : thing === data.steps[ways[0][3][0]][0] ? "start" : "";
    const group = drawn("g", { class: where });
    group.append(
      drawn("title", {}, title(thing)),
      drawn("rect", { x, y, width, height, rx: 8 }),
      drawn("text", { x: x + 9, y: y + (second ? 18 : 28), class: "kind" }, cut(first, 21)),
    );
    if (second) group.append(drawn("text", { x: x + 9, y: y + 35 }, cut(second, 18)));
    svg.append(group);
  }
  return svg;
};

const listed = (way, open) => {
  const [to, count, cost, path, closed] = way;
  const steps = path.map((index) => data.steps[index]);
  const items = element("ol", { class: "path" });
  if (steps.length) items.append(element("li", {}, title(steps[0][0])));
  for (const step of steps.filter(told)) items.append(element("li", {}, line(step)));
  const number = count > 1 || data.things[to][2] === "" ? ` (${count.toLocaleString("en")})` : "";
  const of = data.things[to][0] === "cluster" ? "" : number;
  const made = element(
    "details", {}, element("summary", {}, `${title(to)}${of}, ${cost ? `${cost} step${cost === 1 ? "" : "s"}` : "at once"}`),
    items,
  );
  if (closed.length) {
    const list = element("ul", {});
    for (const one of closed) list.append(element("li", {}, data.texts[one]));
    made.append(element("p", {}, "Closed by:"), list);
  }
  made.open = open;
  return made;
};

const PARTS = [
  ["cluster", "Cluster-admin", ["cluster"]],
  ["secrets", "Secrets", ["secrets"]],
  ["serviceaccounts", "Service accounts and other users", [
    "serviceaccounts", "users", "groups", "kubelets", "roles", "clusterroles", "namespaces",
  ]],
  ["nodes", "Other nodes", ["nodes", "hosted"]],
  ["objects", "Other objects", null],
];
const NAMED = new Set(PARTS.flatMap(([, , kinds]) => kinds ?? []));

let chosen = null;

const show = (index, part) => {
  chosen = index;
  const node = data.nodes[index];
  byId("hint").hidden = true;
  byId("chosen").textContent = `Paths from node ${node.name}`;
  const paths = byId("paths");
  paths.replaceChildren();
  const leading = node.ways.filter((way) => data.things[way[0]][0] === "cluster");
  // Of the rest, what takes the most steps shows the most.
  const ways = leading.length
    ? leading
    : [...node.ways].sort((one, other) => other[2] - one[2]).slice(0, MOST_DRAWN);
  if (ways.length) {
    const box = element("div", {
      class: "drawing", role: "region", tabindex: 0, "aria-label": "Drawing of the paths listed below",
    });
    paths.append(box);
    const isWide = box.clientWidth > 640;
    const most = isWide ? MOST_DRAWN : MOST_DRAWN_NARROW;
    box.append(drawing(ways.slice(0, most), isWide));
    const more = leading.length - most;
    if (more > 0) paths.append(element("p", { class: "note" }, `${more} longer paths are listed alone.`));
  }
  let target = null;
  for (const [id, heading, kinds] of PARTS) {
    const found = node.ways.filter((way) => {
      const kind = data.things[way[0]][0];
      return kinds ? kinds.includes(kind) : !NAMED.has(kind);
    });
    if (!found.length && id !== part) continue;
    // What counts the most comes first; paths to the cluster are in order.
    if (id !== "cluster") found.sort((one, other) => other[1] - one[1]);
    const head = element("h3", { id: `part-${id}`, tabindex: -1 }, heading);
    paths.append(head);
    if (id === part) target = head;
    if (leading.length && id !== "cluster") {
      paths.append(element("p", { class: "note" }, "All fall with the cluster. At once:"));
    }
    if (!found.length) paths.append(element("p", {}, "None."));
    found.slice(0, MOST_LISTED).forEach((way, at) =>
      paths.append(listed(way, at === 0 && id === part)));
    if (found.length > MOST_LISTED) {
      paths.append(element("p", { class: "note" }, `… and ${found.length - MOST_LISTED} more; JSON has them.`));
    }
  }
  for (const row of document.querySelectorAll("[data-row]")) {
    if (Number(row.dataset.row) === index) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
  return target;
};

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-node]");
  if (!link) return;
  event.preventDefault();
  const target = show(Number(link.dataset.node), link.dataset.part ?? "cluster");
  byId("detail").scrollIntoView();
  (target ?? byId("detail")).focus({ preventScroll: target === null });
});

// What is on the paths of each node: namespaces and service accounts.
const seen = data.nodes.map((node) => {
  const found = new Set();
  for (const way of node.ways) {
    for (const index of way[3]) {
      for (const at of [data.steps[index][0], data.steps[index][1]]) {
        const [kind, namespace, name] = data.things[at];
        if (namespace) found.add(`n ${namespace}`);
        if (kind === "serviceaccounts" && name) found.add(`a ${namespace}/${name}`);
      }
    }
  }
  return found;
});

const fill = (select, prefix) => {
  const names = new Set();
  for (const one of seen) for (const key of one) if (key.startsWith(prefix)) names.add(key.slice(2));
  for (const name of [...names].sort()) select.append(element("option", { value: name }, name));
};
fill(byId("by-namespace"), "n ");
fill(byId("by-account"), "a ");

const filter = () => {
  const name = byId("by-node").value.trim().toLowerCase();
  const namespace = byId("by-namespace").value;
  const account = byId("by-account").value;
  const falls = byId("by-fall").checked;
  let count = 0;
  data.nodes.forEach((node, index) => {
    const leads = node.ways.some((way) => data.things[way[0]][0] === "cluster");
    const stays =
      node.name.toLowerCase().includes(name) && (!falls || leads) &&
      (!namespace || seen[index].has(`n ${namespace}`)) &&
      (!account || seen[index].has(`a ${account}`));
    count += stays;
    for (const one of shownBy[index]) one.hidden = !stays;
  });
  byId("count").textContent = `${count.toLocaleString("en")} of ${data.nodes.length.toLocaleString("en")} nodes`;
};
const shownBy = data.nodes.map(() => []);
for (const row of document.querySelectorAll("[data-row]")) shownBy[row.dataset.row].push(row);
for (const tile of document.querySelectorAll(".map a")) {
  shownBy[tile.dataset.node].push(tile.parentElement);
}
byId("filters").hidden = false;
byId("filters").addEventListener("input", filter);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
filter();

let wide = null;
addEventListener("resize", () => {
  const now = innerWidth > 700;
  if (chosen !== null && now !== wide) show(chosen, "cluster");
  wide = now;
});
if (data.nodes.length) show(0, "cluster");
