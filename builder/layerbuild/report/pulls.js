// What a node that has one image pulls for another: containerd keeps blobs by digest, Docker layers by their chain.
const EMPTY = -1;
const SMALL = 12; // images up to which all pulls fit into a table

/** Layers that a node which keeps blobs by digest lacks. */
function byDigest(from, to) {
  const there = from === EMPTY ? new Set() : held[from];
  return [...held[to]].filter((i) => !there.has(i));
}

/** Layers that a node lacks to which a layer is another one as soon as anything below it is. */
function byChain(from, to) {
  const there = from === EMPTY ? [] : images[from].layers;
  const wanted = images[to].layers;
  let same = 0;
  while (same < wanted.length && same < there.length && alike(there[same], wanted[same])) same += 1;
  return [...new Set(wanted.slice(same))];
}

/** One layer, or two blobs of one tar: a chain is made of diffIDs (OCI image-spec, config.md, "Layer ChainID"). */
function alike(a, b) {
  return a === b || (layers[a].diff_id !== null && layers[a].diff_id === layers[b].diff_id);
}

class Pulls {
  constructor(home) {
    Object.assign(this, { from: images.length > 1 ? 0 : EMPTY, to: images.length > 1 ? 1 : 0, way: byDigest });
    const names = images.map((image, n) => [n, image.name]);
    this.has = this.select("pull-from", [[EMPTY, "nothing yet"], ...names], "from");
    this.wants = this.select("pull-to", names, "to");
    const swap = make("button", { type: "button", click: () => this.choose(this.to, Math.max(0, this.from)) }, "Swap");
    const tools = make("div", { class: "tools" }, labelled("A node that has", this.has), labelled("pulls", this.wants), swap);
    this.result = make("div", { role: "status", id: "pull-result" });
    this.moves = new Table(MOVES, [], { caption: "Layers that move", words: (row) => title(layers[row.i]) });
    this.others = new Table(this.columnsOfOthers(), names.map(([n]) => n), {
      caption: "From what the node has to every image",
      words: (n) => images[n].name,
    });
    home.append(tools, this.result, folded("The layers that move", this.moves.element));
    home.append(folded("From there to every image", this.others.element), this.overview());
    this.choose(this.from, this.to);
  }

  select(id, options, name) {
    const control = make(
      "select",
      { id, change: (event) => this.choose(...(name === "from" ? [+event.target.value, this.to] : [this.from, +event.target.value])) },
      ...options.map(([value, text]) => make("option", { value }, text)),
    );
    return control;
  }

  columnsOfOthers() {
    const bytes = (way) => (n) => sum(way(this.from, n)).bytes;
    return [
      { label: "Image", name: true, cell: (n) => images[n].name, by: (n) => images[n].name },
      { label: "containerd", number: true, cell: (n) => told(sum(byDigest(this.from, n))), by: bytes(byDigest) },
      { label: "Docker", number: true, cell: (n) => told(sum(byChain(this.from, n))), by: bytes(byChain) },
    ];
  }

  choose(from, to) {
    Object.assign(this, { from, to });
    this.has.value = String(from);
    this.wants.value = String(to);
    const [digests, chain] = [byDigest(from, to), byChain(from, to)];
    const whole = sum(held[to]).bytes;
    const name = from === EMPTY ? "has nothing" : `has ${images[from].name}`;
    this.result.replaceChildren(
      make(
        "dl",
        { class: "pair" },
        ...line("containerd, by digest", "pull-digest", sum(digests), whole),
        ...line("Docker, by chain", "pull-chain", sum(chain), whole),
      ),
      make("p", {}, `A node that ${name} pulls this of the ${told(sum(held[to]))} of ${images[to].name}. ${UNPACKED}`),
    );
    const moved = new Set(digests);
    this.moves.replace(chain.map((i) => ({ i, moved: moved.has(i) })).concat(digests.filter((i) => !chain.includes(i)).map((i) => ({ i, moved: true, only: true }))));
    this.others.show();
    this.paint();
  }

  /** All pairs: a table of few images, a picture of many. */
  overview() {
    const radio = (text, way, checked) => {
      const change = () => {
        this.way = way;
        this.paint();
      };
      return labelled(text, make("input", { type: "radio", name: "way", checked, change }), "check");
    };
    const tools = make(
      "div",
      { class: "tools", role: "radiogroup", "aria-label": "How the node keeps layers" },
      radio("by digest (containerd)", byDigest, true),
      radio("by chain (Docker)", byChain, false),
    );
    this.picture = images.length > SMALL ? this.canvas() : make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "All pulls" });
    this.scale = make("p", { class: "soft" });
    return make("div", {}, make("h3", {}, "From any image to any other"), tools, this.picture, this.scale);
  }

  canvas() {
    const at = (event) => {
      const place = (offset, length) => Math.max(0, Math.min(images.length - 1, Math.floor((offset / length) * images.length)));
      return [place(event.offsetY, this.picture.clientHeight), place(event.offsetX, this.picture.clientWidth)];
    };
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
    return make("canvas", {
      role: "img",
      "aria-label": "Pulls from each image, a row, to each other, a column. Choose two images above for the numbers.",
      click: (event) => this.choose(...at(event)),
      mousemove: (event) => {
        const [from, to] = at(event);
        this.picture.title = `has ${images[from].name}, pulls ${images[to].name}: ${told(sum(this.way(from, to)))}`;
      },
    });
  }

  paint() {
    if (images.length > SMALL) this.paintCanvas();
    else this.picture.replaceChildren(this.all());
  }

  paintCanvas() {
    const side = Math.max(3, Math.min(24, Math.floor(720 / images.length)));
    const { picture } = this;
    picture.width = picture.height = side * images.length;
    const pen = picture.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    pen.fillStyle = style.getPropertyValue("--none");
    pen.fillRect(0, 0, picture.width, picture.height);
    pen.fillStyle = style.getPropertyValue("--strong");
    const costs = images.map((_, from) => images.map((__, to) => sum(this.way(from, to)).bytes));
    const most = Math.max(1, ...costs.map((row) => Math.max(...row)));
    costs.forEach((row, from) =>
      row.forEach((bytes, to) => {
        pen.globalAlpha = Math.sqrt(bytes / most);
        pen.fillRect(to * side, from * side, side, side);
      }),
    );
    pen.globalAlpha = 1;
    pen.strokeStyle = style.getPropertyValue("--ink");
    pen.lineWidth = 2;
    if (this.from !== EMPTY) pen.strokeRect(this.to * side, this.from * side, side, side);
    this.scale.textContent = `Rows have, columns pull, in the order of the lists above. Palest: nothing; darkest: ${size(most)}.`;
  }

  all() {
    const cell = (from, to) => {
      const chosen = from === this.from && to === this.to;
      const button = make("button", { class: "link", type: "button", click: () => this.choose(from, to) }, told(sum(this.way(from, to))));
      return make("td", { class: "number" }, from === to ? "" : chosen ? make("strong", {}, button) : button);
    };
    const head = make("tr", {}, make("th", { scope: "col" }, "has \u2193   pulls \u2192"), ...images.map((image) => make("th", { scope: "col", class: "number" }, image.name)));
    const rows = [EMPTY, ...images.keys()].map((from) =>
      make("tr", {}, make("th", { scope: "row" }, from === EMPTY ? "nothing yet" : images[from].name), ...images.map((_, to) => cell(from, to))),
    );
    return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  }
}

const UNPACKED = "containerd pulls by digest, and unpacks again what Docker would pull.";

const MOVES = [
  { label: "Layer", name: true, cell: (row) => title(layers[row.i]), by: (row) => title(layers[row.i]) },
  { label: "Kind", cell: (row) => layers[row.i].kind, by: (row) => layers[row.i].kind },
  { label: "Size", number: true, cell: (row) => size(layers[row.i].size), by: (row) => layers[row.i].size },
  { label: "containerd", cell: (row) => (row.moved ? "pulled" : "there"), by: (row) => (row.moved ? 1 : 0) },
  { label: "Docker", cell: (row) => (row.only ? "there" : "pulled"), by: (row) => (row.only ? 0 : 1) },
];

function line(text, id, cost, whole) {
  const share = whole ? (100 * cost.bytes) / whole : 0;
  const bar = draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  bar.append(draw("rect", { width: 100, height: 10 }), draw("rect", { width: share, height: 10 }));
  return [make("dt", {}, text), make("dd", { class: "number", id, "data-bytes": cost.bytes, "data-unknown": cost.unknown }, told(cost)), make("dd", {}, bar)];
}

/** Behind a word that unfolds it. */
function folded(text, ...children) {
  return make("details", {}, make("summary", {}, text), ...children);
}
