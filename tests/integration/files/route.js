/*
 * Asks Screwdriver's own router where builds go. Reads [{config, image, builds, seed}] from stdin, config being the executor section as
 * the worker has it, and prints for each how many of the builds every executor got.
 */
'use strict';

const Router = require('screwdriver-executor-router');
const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));

/** A generator of numbers in [0, 1) that gives the same ones for the same seed (mulberry32). */
function generator(seed) {
    let state = seed;

    return () => {
        state = (state + 0x6d2b79f5) | 0;
        let mixed = Math.imul(state ^ (state >>> 15), 1 | state);

        mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;

        return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
}

const answers = cases.map(({ config, image, builds, seed }) => {
    const plugins = Object.keys(config).filter(name => name !== 'plugin').map(name => ({ name, ...config[name] }));
    const router = new Router({ defaultPlugin: config.plugin, executor: plugins, ecosystem: {} });
    const counts = {};

    Math.random = generator(seed);
    for (let build = 0; build < builds; build += 1) {
        const chosen = router.getExecutor({ container: image });
        const name = plugins.map(plugin => plugin.name).find(plugin => router[plugin] === chosen) || 'none';

        counts[name] = (counts[name] || 0) + 1;
    }

    return counts;
});

process.stdout.write(`ANSWERS ${JSON.stringify(answers)}\n`);
