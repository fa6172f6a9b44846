// What the tests of one file share: one `spawnpoint up`, one browser; and what each test gets: tabs
// of its own profile, closed after it, with nothing gone wrong in them.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, SMALL, Tab } from './browser.js';
import { startUp } from './command.js';

const LOG_SHOWN = 6000; // characters of the server's log beside a failure

/** `options` as for `startUp`. Returns `(name, body, {timeout})`, which declares a test. */
export function stage(options = {}) {
  let up;
  let browser;
  before(async () => {
    browser = await launch();
    up = await startUp(options);
  }, { timeout: 60_000 });
  after(async () => {
    await browser?.close();
    await up?.stop();
  }, { timeout: 60_000 });

  return (name, body, { timeout = 60_000 } = {}) => test(name, { timeout }, async () => {
    const tabs = [];
    const contexts = [];
    const profile = async (settings = {}) => {
      const context = await browser.newContext({ viewport: SMALL, ...settings });
      contexts.push(context);
      return context;
    };
    const open = async (path = '/play', { context, ...settings } = {}) => {
      const tab = await Tab.open(context ?? await profile(settings), new URL(path, up.url).href);
      tabs.push(tab);
      return tab;
    };
    const adopt = (page) => {
      const tab = new Tab(page);
      tabs.push(tab);
      return tab;
    };
    try {
      await body({ up, profile, open, adopt });
      for (const tab of tabs) tab.assertClean();
    } catch (error) {
      const stem = name.replaceAll(/[^a-z0-9]+/gi, '-').toLowerCase().slice(0, 60);
      await Promise.all(tabs.map((tab, i) => tab.picture(`failed-${stem}-${i + 1}`).catch(() => {})));
      const faults = tabs.flatMap(({ faults: list }, i) => list.map((fault) => `tab ${i + 1}: ${fault}`)).join('\n');
      error.message += `\n--- in the tabs\n${faults}\n--- log of spawnpoint up\n${up.log.slice(-LOG_SHOWN)}`;
      throw error;
    } finally {
      await Promise.all(contexts.map((context) => context.close()));
      await up.endAll();
    }
    assert.equal((await up.sessions()).length, 0, 'a test leaves no session');
  });
}
