"use strict";
// The picture holds, for each pixel, the number of its class in the legend: red + 256 green, 0 for none.
const canvas = document.querySelector("canvas"), frame = document.getElementById("frame");
const at = document.getElementById("at"), picture = document.getElementById("rows");
const boxes = [...document.querySelectorAll("input")];
const transform = JSON.parse(canvas.dataset.transform), pointers = new Map();
let rows, fit = 1, view = { x: 0, y: 0, scale: 1 };

function paint() {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const colors = new Uint32Array(boxes.length + 1); // little-endian: alpha, blue, green, red
  boxes.forEach((box, i) => {
    const [red, green, blue] = [1, 3, 5].map((k) => parseInt(box.dataset.color.slice(k, k + 2), 16));
    colors[i + 1] = box.checked ? (255 << 24) | (blue << 16) | (green << 8) | red : 0;
  });
  new Uint32Array(image.data.buffer).set(rows.map((row) => colors[row]));
  context.putImageData(image, 0, 0);
}

function place() {
  const { clientWidth: width, clientHeight: height } = frame, margin = 40; // of the map stay in sight
  view.x = Math.min(Math.max(view.x, margin - canvas.width * view.scale), width - margin);
  view.y = Math.min(Math.max(view.y, margin - canvas.height * view.scale), height - margin);
  canvas.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
}

function whole() {
  const { clientWidth: width, clientHeight: height } = frame;
  view.scale = fit = Math.min(width / canvas.width, height / canvas.height);
  view.x = (width - canvas.width * view.scale) / 2;
  view.y = (height - canvas.height * view.scale) / 2;
  place();
}

function zoom(factor, x, y) {
  const scale = Math.min(Math.max(view.scale * factor, fit / 2), Math.max(64, 4 * fit));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  place();
}

function middle() { // of one finger or two, and how far apart they are
  const points = [...pointers.values()], [first, last] = [points[0], points[points.length - 1]];
  return { x: (first.x + last.x) / 2, y: (first.y + last.y) / 2, apart: Math.hypot(first.x - last.x, first.y - last.y) };
}

function inFrame(event) {
  const { left, top } = frame.getBoundingClientRect();
  return { x: event.clientX - left, y: event.clientY - top };
}

function show({ x, y }) {
  const [column, row] = [(x - view.x) / view.scale, (y - view.y) / view.scale];
  if (column < 0 || row < 0 || column >= canvas.width || row >= canvas.height) return;
  const [a, b, c, d, e, f] = transform, east = a * column + b * row + c, north = d * column + e * row + f;
  const digits = Math.max(0, Math.ceil(-Math.log10(Math.hypot(a, d)))); // as many as tell neighbours apart
  const where = canvas.dataset.crs
    ? `${east.toFixed(digits)}, ${north.toFixed(digits)} (${canvas.dataset.crs})`
    : `column ${Math.floor(east)}, row ${Math.floor(north)}`;
  const number = rows[Math.floor(row) * canvas.width + Math.floor(column)];
  at.textContent = `${number ? boxes[number - 1].parentElement.childNodes[2].textContent : "no class"}: ${where}`;
}

function start() {
  [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  rows = Uint32Array.from({ length: data.length / 4 }, (_, i) => data[4 * i] + 256 * data[4 * i + 1]);
  boxes.forEach((box) => box.addEventListener("change", paint));
  frame.addEventListener("pointerdown", (event) => pointers.set(event.pointerId, inFrame(event)));
  frame.addEventListener("pointermove", (event) => {
    if (pointers.has(event.pointerId)) {
      const before = middle();
      pointers.set(event.pointerId, inFrame(event));
      const after = middle();
      [view.x, view.y] = [view.x + after.x - before.x, view.y + after.y - before.y];
      zoom(before.apart ? after.apart / before.apart : 1, after.x, after.y);
    }
    show(inFrame(event));
  });
  ["pointerup", "pointercancel", "pointerleave"].forEach((end) =>
    frame.addEventListener(end, (event) => pointers.delete(event.pointerId)));
  frame.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x, y } = inFrame(event);
    zoom(2 ** (-event.deltaY / 300), x, y);
  }, { passive: false });
  document.querySelectorAll("button").forEach((button) => button.addEventListener("click", () =>
    button.dataset.zoom > 0 ? zoom(Number(button.dataset.zoom), frame.clientWidth / 2, frame.clientHeight / 2) : whole()));
  window.addEventListener("resize", place);
  paint();
  whole();
}

window.addEventListener("load", start);
