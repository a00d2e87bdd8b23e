/*
 * Prints the pod that Screwdriver's own executor would POST. Reads [options] from stdin, as the worker hands them to the executor.
 */
'use strict';

const Executor = require('screwdriver-executor-k8s');
const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const pods = cases.map(options =>
    new Executor({ ...options, ecosystem: { api: 'https://api', store: 'https://store', ui: 'https://ui' } }).createPodConfig({
        buildId: 1,
        container: 'node:22',
        token: 'secret'
    })
);

console.log(`ANSWERS ${JSON.stringify(pods)}`);
