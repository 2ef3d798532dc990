// The data, and what every part of the page is made with. Names reach the page as text only.
const data = JSON.parse(document.getElementById("data").textContent);
const { images, layers, models, findings } = data;

/** Bytes for people, as the command line writes them: "4.0 GiB", "?" where nobody knows. */
function size(count) {
  if (count === null) return "?";
  let value = count;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (Math.abs(value) < 1023.95) return unit === "B" ? `${count} B` : `${tenths(value)} ${unit}`;
    value /= 1024;
  }
  return `${tenths(value)} TiB`;
}

/** One decimal, ties to even as in Python. */
function tenths(value) {
  const whole = Math.floor(value * 10);
  const rounded = value * 10 - whole === 0.5 ? whole + (whole % 2) : Math.round(value * 10);
  return (rounded / 10).toFixed(1);
}

/** Known bytes, and how many sizes are not known. */
function sum(some) {
  let bytes = 0;
  let unknown = 0;
  for (const i of some) {
    if (layers[i].size === null) unknown += 1;
    else bytes += layers[i].size;
  }
  return { bytes, unknown };
}

const told = ({ bytes, unknown }) => (unknown ? `${size(bytes)} + ${unknown} × ?` : size(bytes));
const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const short = (digest) => (digest ? digest.replace("sha256:", "").slice(0, 12) : "");
const title = ({ titles, kind }) => titles.map((text) => text.replace(`${kind} `, "")).join(", ");

/** An element; attributes that are functions are listeners, children are elements or text. */
function make(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An element of SVG. */
function draw(tag, attributes, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A labelled control. */
function labelled(text, control, kind) {
  return kind === "check" ? make("label", { class: "check" }, control, text) : make("label", {}, text, control);
}

/** A digest: its beginning, all of it to whoever points at it. */
function digest(text) {
  return text ? make("code", { title: text }, short(text)) : make("span", { class: "soft" }, "?");
}

// Who has what. `users[i]` are the images that have layer i; `held[n]` are the layers of image n.
const held = images.map((image) => new Set(image.layers));
const users = layers.map(() => []);
held.forEach((some, n) => some.forEach((i) => users[i].push(n)));
const place = document.getElementById.bind(document);
