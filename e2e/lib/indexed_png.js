// A PNG with a palette of 256 colours: a third of the size, and the eye hardly sees it in a night desert.

import { deflateSync, crc32 } from 'node:zlib';

const COLOURS = 256;
const BITS = 5; // of each channel, while colours are counted: 32,768 bins

/** The pixels of a PNG, decoded by the browser that `page` is in: `{width, height, rgba}`. */
async function pixels(page, png) {
  const { width, height, rgba } = await page.evaluate(async (source) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    let text = '';
    for (let i = 0; i < data.length; i += 32_768) text += String.fromCharCode(...data.subarray(i, i + 32_768));
    return { width: image.width, height: image.height, rgba: btoa(text) };
  }, `data:image/png;base64,${png.toString('base64')}`);
  return { width, height, rgba: Buffer.from(rgba, 'base64') };
}

/** Bins of similar colours: `{count, sum: [r, g, b], mean}` of those that occur, by bin number. */
function histogram(rgba) {
  const bins = new Map();
  for (let i = 0; i < rgba.length; i += 4) {
    const key = binOf(rgba, i);
    const bin = bins.get(key) ?? { count: 0, sum: [0, 0, 0] };
    bin.count += 1;
    for (let c = 0; c < 3; c += 1) bin.sum[c] += rgba[i + c];
    bins.set(key, bin);
  }
  for (const bin of bins.values()) bin.mean = bin.sum.map((sum) => sum / bin.count);
  return bins;
}

const binOf = (rgba, i) => ((rgba[i] >> (8 - BITS)) << (2 * BITS)) | ((rgba[i + 1] >> (8 - BITS)) << BITS) | (rgba[i + 2] >> (8 - BITS));

/** The channel along which these bins vary most, and by how much in all. */
function spread(bins) {
  const total = bins.reduce((sum, { count }) => sum + count, 0);
  let widest = { channel: 0, variance: -1 };
  for (let c = 0; c < 3; c += 1) {
    const mean = bins.reduce((sum, bin) => sum + bin.sum[c], 0) / total;
    const variance = bins.reduce((sum, bin) => sum + bin.count * (bin.mean[c] - mean) ** 2, 0);
    if (variance > widest.variance) widest = { channel: c, variance };
  }
  return widest;
}

/** Median cut, always of the box in which most is lost. Returns boxes of bins. */
function boxes(all) {
  const open = [{ bins: all, ...spread(all) }];
  while (open.length < COLOURS) {
    const worst = open.reduce((a, b) => (b.variance > a.variance ? b : a));
    if (worst.variance <= 0 || worst.bins.length < 2) break;
    const sorted = worst.bins.toSorted((a, b) => a.mean[worst.channel] - b.mean[worst.channel]);
    const half = sorted.reduce((sum, { count }) => sum + count, 0) / 2;
    let [cut, passed] = [0, 0];
    while (cut < sorted.length - 1 && (passed < half || cut === 0)) passed += sorted[cut++].count;
    const parts = [sorted.slice(0, cut), sorted.slice(cut)];
    open.splice(open.indexOf(worst), 1, ...parts.map((bins) => ({ bins, ...spread(bins) })));
  }
  return open.map(({ bins }) => bins);
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}

/** The same picture as an indexed PNG. */
export async function indexedPng(page, png) {
  const { width, height, rgba } = await pixels(page, png);
  const bins = histogram(rgba);
  const indexOf = new Map();
  const palette = [];
  for (const box of boxes([...bins.values()])) {
    const count = box.reduce((sum, bin) => sum + bin.count, 0);
    for (const bin of box) indexOf.set(bin, palette.length / 3);
    for (let c = 0; c < 3; c += 1) palette.push(Math.round(box.reduce((sum, bin) => sum + bin.sum[c], 0) / count));
  }
  const rows = Buffer.alloc((width + 1) * height); // filter type 0 before each row
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) rows[y * (width + 1) + 1 + x] = indexOf.get(bins.get(binOf(rgba, (y * width + x) * 4)));
  }
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 3, 0, 0, 0], 8); // eight bits, palette
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', head), chunk('PLTE', Buffer.from(palette)),
    chunk('IDAT', deflateSync(rows, { level: 9 })), chunk('IEND', Buffer.alloc(0))]);
}
