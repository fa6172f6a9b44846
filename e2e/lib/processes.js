// Whose processes are there? Read from /proc, so these tests need Linux.

import { readFileSync, readdirSync, readlinkSync } from 'node:fs';

function read(pid, file) {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8').split('\0');
  } catch {
    return []; // gone between listing and reading, or not ours to read
  }
}

function executable(pid) {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    return ''; // a zombie has none
  }
}

/** Every living process with `text` in its arguments or environment, but this one. */
export function processesWith(text) {
  const found = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!pid || pid === process.pid) continue;
    const args = read(pid, 'cmdline');
    const environment = read(pid, 'environ');
    if (![...args, ...environment].some((word) => word.includes(text)) || executable(pid) === '') continue;
    const variables = Object.fromEntries(environment.filter(Boolean).map((line) => {
      const at = line.indexOf('=');
      return [line.slice(0, at), line.slice(at + 1)];
    }));
    found.push({ pid, args: args.filter(Boolean), variables });
  }
  return found;
}

export function isAlive(pid) {
  return executable(pid) !== '';
}

/** A process and everything below it. */
export function family(root) {
  const children = new Map();
  for (const entry of readdirSync('/proc')) {
    if (!Number(entry)) continue;
    // pid (name) state parent …, and a name may hold anything but is followed by the last bracket
    const [stat = ''] = read(entry, 'stat');
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
  }
  const found = [root];
  for (const pid of found) found.push(...(children.get(pid) ?? []));
  return found;
}
