// The scene behind the title: two runners and a worm on their endless round. Pure; no server.

import { STATUS } from '/play/view.js';

const TAU = Math.PI * 2;
const CENTRE = { x: 1200, y: 750 };
const SPICE = Array.from({ length: 46 }, (_, i) => {
  const turn = i * 2.399963; // the golden angle spreads them evenly
  const reach = 170 + 21 * i;
  return { id: i, x: CENTRE.x + Math.cos(turn) * reach * 1.15, y: CENTRE.y + Math.sin(turn) * reach * 0.8, rich: i % 9 === 0 };
});

export const hello = {
  arena: [2400, 1500],
  rocks: [[760, 480, 120], [1640, 500, 105], [820, 1050, 100], [1690, 1060, 130], [240, 760, 120], [2160, 760, 120]],
};
export const names = new Map([[1, { name: '', hue: 1 }], [2, { name: '', hue: 0 }]]);

function runner(id, at, lead) {
  const turn = at * 0.55 + lead;
  const [x, y] = [CENTRE.x + Math.cos(turn) * 520, CENTRE.y + Math.sin(turn) * 330 + Math.sin(turn * 3) * 40];
  const [vx, vy] = [-Math.sin(turn) * 270, Math.cos(turn) * 270];
  return { id, status: STATUS.running, x, y, vx, vy, flags: 0, noise: 0 };
}

export function scene(at) {
  const turn = at * 0.55 - 0.75;
  const worm = { mood: 1, x: CENTRE.x + Math.cos(turn) * 540, y: CENTRE.y + Math.sin(turn) * 350, hx: 1, hy: 0, left: 0 };
  const players = [runner(1, at, 0), runner(2, at, TAU * 0.09)];
  const eaten = ({ x, y }) => players.some((p) => Math.hypot(p.x - x, p.y - y) < 60);
  return { players, worms: [worm], thumpers: [], blow: null, spice: SPICE.filter((spice) => !eaten(spice)) };
}
