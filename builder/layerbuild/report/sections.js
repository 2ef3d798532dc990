// The page's sections, put together.
const few = (some) => (some.length > 4 ? `${some.slice(0, 3).join(", ")} and ${some.length - 3} more` : some.join(", "));
const namesOf = (some) => few(some.map((n) => images[n].name));

const LAYER_COLUMNS = [
  { label: "Layer", name: true, cell: (i) => title(layers[i]), by: (i) => title(layers[i]) },
  { label: "Kind", cell: (i) => layers[i].kind, by: (i) => layers[i].kind },
  { label: "Size", number: true, cell: (i) => size(layers[i].size), by: (i) => layers[i].size },
  { label: "In", number: true, cell: (i) => String(users[i].length), by: (i) => users[i].length },
  { label: "Images", cell: (i) => namesOf(users[i]) },
  { label: "Digest", cell: (i) => digest(layers[i].digest) },
];

const own = (n) => sum(images[n].layers.filter((i) => users[i].length === 1));
const IMAGE_COLUMNS = [
  { label: "Image", name: true, cell: (n) => images[n].name, by: (n) => images[n].name },
  { label: "Platform", cell: (n) => images[n].platform, by: (n) => images[n].platform },
  { label: "Layers", number: true, cell: (n) => String(held[n].size), by: (n) => held[n].size },
  { label: "Size", number: true, cell: (n) => told(sum(held[n])), by: (n) => sum(held[n]).bytes },
  { label: "Only its own", number: true, cell: (n) => told(own(n)), by: (n) => own(n).bytes },
  { label: "Base", cell: (n) => images[n].base || "scratch", by: (n) => images[n].base || "" },
  { label: "Manifest", cell: (n) => digest(images[n].manifest) },
];

const MODEL_COLUMNS = [
  { label: "Model", name: true, cell: (row) => row.name, by: (row) => row.name },
  { label: "Type", cell: (row) => row.type, by: (row) => row.type },
  { label: "Size", number: true, cell: (row) => size(row.size), by: (row) => row.size },
  { label: "Licence", cell: (row) => row.licence || make("span", { class: "soft" }, "not stated"), by: (row) => row.licence },
  { label: "Source", cell: (row) => make("code", { class: "long" }, row.source), by: (row) => row.source },
  { label: "sha256", cell: (row) => digest(row.sha256), by: (row) => row.sha256 },
  { label: "Images", cell: (row) => namesOf(row.images), by: (row) => row.images.length },
];

function matrixSection(home) {
  let tables = null;
  const filters = ["", ""];
  const fill = () => tables && tables.forEach((table, n) => table.filter(filters[n]));
  const matrix = new Matrix(home, (...needles) => {
    filters.splice(0, 2, ...needles);
    fill();
  });
  const more = folded("The same as tables");
  more.addEventListener("toggle", () => {
    if (tables) return;
    const wordsOf = (i) => words(layers[i]);
    tables = [
      new Table(LAYER_COLUMNS, [...layers.keys()], { caption: "Layers", words: wordsOf }),
      new Table(IMAGE_COLUMNS, [...images.keys()], { caption: "Images", words: (n) => images[n].name }),
    ];
    more.append(...tables.map((table) => table.element));
    fill();
  });
  home.append(more);
  return matrix;
}

function modelSection(home) {
  if (!models.length) {
    home.append(make("p", { class: "soft" }, "No image declares a model."));
    return;
  }
  const table = new Table(MODEL_COLUMNS, models, {
    caption: "Models that images declare, as the webui names them",
    words: (row) => [row.name, row.type, row.licence, row.source, row.sha256, row.layer, namesOf(row.images)].join(" "),
  });
  home.append(searched("Filter models", "filter-models", table), table.element);
}

const LONG = 10; // rows from which on a table has a filter

function searched(text, id, table) {
  if (table.rows.length < LONG) return "";
  const input = make("input", { type: "search", id, input: (event) => table.filter(event.target.value) });
  return make("div", { class: "tools" }, labelled(text, input));
}

// --- cold start ---------------------------------------------------------------------------------

const total = (n, when) => (images[n].audit.total ? images[n].audit.total[when] : null);

/** Seconds, bytes hashed and downloaded at one moment; "nothing" where nothing happens, "?" where nobody knows. */
function costWords(cost) {
  if (!cost) return "?";
  const parts = [];
  if (cost.seconds >= 0.05) parts.push(`${cost.seconds.toFixed(1)} s`);
  if (cost.bytes_hashed) parts.push(`${size(cost.bytes_hashed)} hashed`);
  if (cost.bytes_downloaded) parts.push(`${size(cost.bytes_downloaded)} downloaded`);
  return parts.join(", ") || "nothing";
}

const worst = (n) => {
  const found = (images[n].audit.findings || []).map((i) => findings[i].severity);
  return ["error", "warning", "info"].find((severity) => found.includes(severity)) || "clean";
};

function verdict(n) {
  const { audit } = images[n];
  if (audit.state === "unknown") return make("span", { class: "soft" }, "not known");
  if (audit.state === "clean") return make("span", { class: "clean" }, "clean");
  const bad = audit.findings.filter((i) => findings[i].severity !== "info").length;
  return make("span", { class: worst(n) }, counted(bad, "finding"));
}

function startSection(home) {
  const list = make("div", { class: "told", "aria-live": "polite", id: "findings" });
  let table = null;
  const choose = (n) => {
    table.chosen = n;
    table.show();
    list.replaceChildren(...findingsOf(n));
  };
  const name = (n) => make("button", { class: "link", type: "button", click: () => choose(n) }, images[n].name);
  const moment = (label, when) => ({
    label,
    cell: (n) => costWords(total(n, when)),
    by: (n) => (total(n, when) ? total(n, when).seconds : null),
  });
  const columns = [
    { label: "Image", name: true, cell: name, by: (n) => images[n].name },
    { label: "Audit", cell: verdict, by: (n) => `${images[n].audit.state} ${worst(n)}` },
    { label: "Webui", cell: (n) => images[n].audit.webui || "", by: (n) => images[n].audit.webui || "" },
    moment("At each start", "start"),
    moment("On first use", "use"),
    moment("At each pull", "pull"),
  ];
  table = new Table(columns, [...images.keys()], {
    caption: "What a cold start would still do; times are estimates",
    words: (n) => images[n].name,
  });
  home.append(searched("Filter images", "filter-starts", table), table.element, list);
  if (images.length) choose(Math.max(0, images.findIndex((image) => image.audit.state === "findings")));
}

function findingsOf(n) {
  const { audit, name } = images[n];
  const head = make("h3", {}, name);
  if (audit.state === "unknown") {
    return [head, make("p", {}, `Not known: ${audit.reason}.`), ...(audit.hint ? [make("p", { class: "soft" }, `Try: ${audit.hint}`)] : [])];
  }
  if (!audit.findings.length) return [head, make("p", {}, "Nothing was found.")];
  return [head, make("ul", { class: "findings" }, ...audit.findings.map((i) => findingItem(findings[i])))];
}

function findingItem(finding) {
  const cost = costWords(finding.cost);
  const more = finding.more_paths ? [make("code", {}, `and ${finding.more_paths} more`)] : [];
  return make(
    "li",
    {},
    make("strong", { class: finding.severity === "info" ? null : finding.severity }, `${finding.severity} ${finding.id}`),
    cost === "nothing" ? "" : ` (${cost})`,
    `: ${finding.what}`,
    ...finding.paths.map((path) => make("code", {}, path)),
    ...more,
    make("p", { class: "soft" }, `Try: ${finding.hint}`),
  );
}

// --- the page -----------------------------------------------------------------------------------

const matrix = matrixSection(place("matrix"));
if (images.length) new Pulls(place("pulls"));
modelSection(place("models"));
startSection(place("start"));

const PRINTED = 20000; // cells that are drawn for paper
addEventListener("beforeprint", () => {
  if (matrix.rows.length * matrix.columns.length <= PRINTED) matrix.draw(true);
  tables.forEach((table) => table.show(true));
});
addEventListener("afterprint", () => {
  matrix.draw();
  tables.forEach((table) => table.show());
});
