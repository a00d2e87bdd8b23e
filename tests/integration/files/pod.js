/*
 * Prints the pods that Screwdriver's own executors would POST. Reads [{executor, options}] from stdin; options as the worker hands them to
 * the executor.
 */
'use strict';

const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const ecosystem = { api: 'https://api', store: 'https://store', ui: 'https://ui' };
const build = { buildId: 1, eventId: 1, container: 'node:22', token: 'secret' };

/** The body of the first POST, which is not sent. */
async function posted(executor) {
    let body;

    executor.breaker = {
        runCommand: request => {
            body = request.json === true ? request.body : request.json;

            return Promise.reject(new Error('not sent'));
        }
    };
    await executor._start(build).catch(() => {});

    return body;
}

(async () => {
    const pods = [];

    for (const { executor, options } of cases) {
        const Executor = require(`screwdriver-executor-${executor}`);

        pods.push(await posted(new Executor({ ...options, ecosystem })));
    }
    process.stdout.write(`ANSWERS ${JSON.stringify(pods)}\n`, () => process.exit(0));
})();
