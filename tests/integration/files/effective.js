/*
 * What node-config makes of a worker's sources, and where the router sends builds then. Reads {shipped, variables, cases: [{file, name,
 * environment, image, builds}]} from stdin; prints for each case the executor section and how many builds every executor got, or the error
 * that keeps the worker from starting.
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

/**
 * One number in the middle of each of this many equal parts of [0, 1): what the router draws with them is its own distribution and not a
 * sample of it, to one build for each place where the draw changes.
 */
function grid(builds) {
    let build = 0;

    return () => (build++ + 0.5) / builds;
}

const answers = cases.map(({ file, name, environment, image, builds }) => {
    const local = path.join(directory, name);

    process.env = { ...clean, ...environment };
    if (file !== null) fs.writeFileSync(local, file);
    try {
        // As lib/jobs.js of the worker builds the router.
        const { executor } = config.util.loadFileConfigs();
        const plugins = Object.keys(executor).filter(key => key !== 'plugin').map(key => ({ name: key, ...executor[key] }));
        const router = new Router({ defaultPlugin: executor.plugin, executor: plugins, ecosystem: {} });
        const counts = {};

        Math.random = grid(builds);
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
