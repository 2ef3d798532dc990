// Rows of the matrix, their orders, and what is said of them and of images.
const ORDERS = {
  "most shared first": (a, b) => b.users.length - a.users.length || b.bytes - a.bytes,
  "largest first": (a, b) => b.bytes - a.bytes,
  "as stacked": () => 0,
  "by name": (a, b) => a.title.localeCompare(b.title),
};
const IMAGE_ORDERS = {
  "as declared": () => 0,
  "largest first": (a, b) => sum(held[b]).bytes - sum(held[a]).bytes,
  "by name": (a, b) => images[a].name.localeCompare(images[b].name),
};

/** Rows: layers, or all layers that the same images have. */
function entries(grouped) {
  const found = new Map();
  layers.forEach((layer, i) => {
    const same = grouped ? users[i].join() : i;
    if (!found.has(same)) found.set(same, []);
    found.get(same).push(i);
  });
  return [...found.values()].map((some) => {
    const kinds = new Set(some.map((i) => layers[i].kind));
    const names = some.map((i) => title(layers[i]));
    return {
      layers: some,
      users: users[some[0]],
      kind: kinds.size === 1 ? layers[some[0]].kind : "several",
      title: some.length === 1 ? names[0] : `${some.length} layers: ${names.join(", ")}`,
      words: some.map((i) => words(layers[i])).join("\n"),
      ...sum(some),
    };
  });
}

const words = (layer) => [...layer.titles, layer.kind, layer.digest, layer.key].join(" ").toLowerCase();

/** A row in words. */
function wordsOfRow(row) {
  const some = row.users.slice(0, 12).map((n) => images[n].name);
  const more = row.users.length > some.length ? ` and ${row.users.length - some.length} more` : "";
  const one = row.layers.length === 1 ? layers[row.layers[0]] : null;
  const name = make("strong", {}, row.title.length > 300 ? `${row.title.slice(0, 300)}…` : row.title);
  const kind = row.kind === "several" ? "of several kinds" : row.kind;
  return [
    make("span", {}, name, ` (${kind}), ${told(row)}`, ...(one && one.digest ? [", ", make("code", {}, one.digest)] : [])),
    `In ${counted(row.users.length, "image")}: ${some.join(", ")}${more}.`,
  ];
}

/** An image in words. */
function wordsOfImage(n) {
  const image = images[n];
  const own = sum(image.layers.filter((i) => users[i].length === 1));
  const manifest = image.manifest ? [", ", make("code", {}, image.manifest)] : [];
  return [
    make("span", {}, make("strong", {}, image.name), ` (${image.platform}), ${told(sum(held[n]))}`, ...manifest),
    `${counted(held[n].size, "layer")}, ${told(own)} of them in no other image; ${image.base ? `base ${image.base}` : "from scratch"}.`,
  ];
}

/** A nested window: what is drawn in it does not show outside. */
function window_(x, y, width, height, children) {
  return draw("svg", { x, y, width: Math.max(0, width), height: Math.max(0, height) }, ...children);
}
