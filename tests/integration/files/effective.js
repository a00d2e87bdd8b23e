/*
 * What node-config makes of a worker's sources, and where the router sends builds then. Reads {shipped, variables, cases: [{file, name,
 * environment, image, builds, seed}]} from stdin; prints for each case the executor section and how many builds every executor got, or
 * the error that keeps the worker from starting.
 */
'use strict';

const fs = require('fs');
const os = require('os');
const path = require('path');

const { shipped, variables, cases } = JSON.parse(fs.readFileSync(0, 'utf8'));
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'config-'));
const clean = { ...process.env, NODE_CONFIG_DIR: directory };

fs.writeFileSync(path.join(directory, 'default.json'), JSON.stringify({ executor: shipped }));
fs.writeFileSync(path.join(directory, 'custom-environment-variables.json'), JSON.stringify({ executor: variables }));
process.env.NODE_CONFIG_DIR = directory;
process.env.SUPPRESS_NO_CONFIG_WARNING = 'true';
console.error = () => {};
console.warn = () => {};

const config = require('config');
const Router = require('screwdriver-executor-router');

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

const answers = cases.map(({ file, name, environment, image, builds, seed }) => {
    const local = path.join(directory, name);

    process.env = { ...clean, ...environment };
    if (file !== null) fs.writeFileSync(local, file);
    try {
        // As lib/jobs.js of the worker builds the router.
        const { executor } = config.util.loadFileConfigs();
        const plugins = Object.keys(executor).filter(key => key !== 'plugin').map(key => ({ name: key, ...executor[key] }));
        const router = new Router({ defaultPlugin: executor.plugin, executor: plugins, ecosystem: {} });
        const counts = {};

        Math.random = generator(seed);
        for (let build = 0; build < builds; build += 1) {
            const chosen = router.getExecutor({ container: image });
            const picked = plugins.map(plugin => plugin.name).find(plugin => chosen && router[plugin] === chosen) || 'none';

            counts[picked] = (counts[picked] || 0) + 1;
        }

        return { executor, counts };
    } catch (err) {
        return { error: err.message };
    } finally {
        if (file !== null) fs.unlinkSync(local);
    }
});

fs.rmSync(directory, { recursive: true });
process.stdout.write(`ANSWERS ${JSON.stringify(answers)}\n`, () => process.exit(0));
