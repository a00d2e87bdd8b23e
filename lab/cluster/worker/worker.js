/*
 * A stub of Screwdriver's buildcluster-queue-worker, its queue and its API (none of them is on the npm registry).
 * It generates builds, sends each through the real screwdriver-executor-router and its executors with the executor section that
 * the worker's ConfigMap holds at that moment, and treats the answers as the worker's receiver.js does.
 */
'use strict';

const fs = require('fs');
const http = require('http');
const path = require('path');
const yaml = require('js-yaml');
const Router = require('screwdriver-executor-router');

const { LAB_SERVER, LAB_TOKEN, LAB_API_PORT, LAB_BUILDS } = process.env;
const RATE = Number(process.env.LAB_RATE);
const NAMESPACE = 'sd-builds';
const CONFIG = '/api/v1/namespaces/sd/configmaps';
const API = `http://127.0.0.1:${LAB_API_PORT}`;
// The worker's rabbitmq.prefetchCount and messageReprocessLimit; its 5 s dead-letter ten times faster; its init timeout as it is given.
const PREFETCH = 20;
const REPROCESS_LIMIT = 3;
const DEAD_LETTER_MS = 500;
const INIT_TIMEOUT_MS = Number(process.env.LAB_INIT_SECONDS) * 1000;
// Ten times faster than Screwdriver's own 90 minutes.
const BUILD_TIMEOUT_MS = 540 * 1000;
const MAX_IN_FLIGHT = 500;
// From a pod's creation until a kubelet has taken it on: more than this, and the machine does not keep up with the builds.
const MAX_LAG_MS = 3000;
const EXCLUDED = /rhel6/i;
// image and how many of 100 builds use it
const IMAGES = [
    ['node:22', 30],
    ['golang:1.26', 20],
    ['python:3.13', 15],
    ['maven:3-eclipse-temurin-21', 10],
    ['rust:1.95', 10],
    ['registry.example/rhel6-tools:1', 8],
    ['REGISTRY.EXAMPLE/RHEL6:6.10', 7]
];

const stats = {
    sent: 0, pinned: 0, running: 0, in_flight: 0, succeeded: 0, start_failures: 0, restarted: 0, lost: 0, wedged: 0, excluded_on_kata: 0, executors: {}
};
const builds = new Map();
const queue = [];
let config = '';
let nextId = 1;
let unacknowledged = 0;
let stopping = false;
let due = 0;
let ticked = Date.now();

fs.mkdirSync(LAB_BUILDS, { recursive: true });
const journal = fs.createWriteStream(path.join(LAB_BUILDS, 'builds.jsonl'), { flags: 'a' });

function saveStats() {
    const file = path.join(LAB_BUILDS, 'stats.json');

    fs.writeFileSync(`${file}.new`, JSON.stringify({ ...stats, queued: queue.length }));
    fs.renameSync(`${file}.new`, file);
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

async function call(url) {
    const response = await fetch(`https://${LAB_SERVER}${url}`, { headers: { Authorization: `Bearer ${LAB_TOKEN}` } });

    if (!response.ok) throw new Error(`${response.status} ${url}`);

    return response;
}

/** Lists, then watches without end; calls `changed` for every object that exists or changes. */
async function follow(url, query, changed) {
    for (;;) {
        try {
            const list = await (await call(`${url}?${query}`)).json();

            list.items.forEach(item => changed('ADDED', item));
            const version = list.metadata.resourceVersion;
            const stream = await call(`${url}?${query}&watch=1&resourceVersion=${version}&timeoutSeconds=300`);
            const decoder = new TextDecoder();
            let text = '';

            for await (const chunk of stream.body) {
                text += decoder.decode(chunk, { stream: true });
                const lines = text.split('\n');

                text = lines.pop();
                lines.forEach(line => {
                    const { type, object } = JSON.parse(line);

                    if (type !== 'ERROR') changed(type, object);
                });
            }
        } catch (err) {
            await sleep(500);
        }
    }
}

/** A router as the worker's lib/jobs.js creates it for each message; `picked` is the name of the executor that it last picked. */
function route() {
    const { executor, ecosystem } = yaml.load(config);
    const plugins = Object.keys(executor).filter(name => name !== 'plugin').map(name => ({ name, ...executor[name] }));
    const router = new Router({ defaultPlugin: executor.plugin, executor: plugins, ecosystem });
    const pick = router.getExecutor.bind(router);

    router.getExecutor = message => {
        const chosen = pick(message);

        router.picked = plugins.map(({ name }) => name).find(name => router[name] === chosen);

        return chosen;
    };

    return router;
}

function message(build) {
    return {
        buildId: build.id,
        eventId: build.id,
        jobId: 1,
        jobName: 'main',
        pipelineId: 1,
        pipeline: { id: 1, name: 'screwdriver/demo', scmContext: 'github:github.com' },
        container: build.image,
        annotations: build.pin ? { 'screwdriver.cd/executor': build.pin } : {},
        apiUri: API,
        token: 'build-token'
    };
}

function record(build, result) {
    builds.delete(build.id);
    journal.write(`${JSON.stringify({ ...build, timer: undefined, result, ended: new Date().toISOString() })}\n`);
}

function send(image, { origin, pin } = {}) {
    const build = { id: nextId, image, origin, pin, sent: new Date().toISOString(), attempts: 0 };

    nextId += 1;
    builds.set(build.id, build);
    queue.push(build);
}

/** A build that did not start is started again, as its user or Screwdriver's restart would. */
function restart(build, why) {
    stats.start_failures += 1;
    record(build, `FAILURE: ${why}`);
    stats.restarted += 1;
    // Its user drops the pin: a pinned build would never leave the executor that failed it.
    send(build.image, { origin: build.origin || build.id });
}

async function stop(build) {
    clearTimeout(build.timer);
    for (;;) {
        try {
            const { annotations, ...rest } = message(build);

            await route().stop(rest);

            return;
        } catch (err) {
            await sleep(DEAD_LETTER_MS);
        }
    }
}

/** Stops a build that does not end, as Screwdriver does: its node may never report its end. */
async function timeOut(build) {
    build.over = true;
    build.timed_out = true;
    stats.running -= 1;
    await stop(build);
    record(build, 'Failed');
}

async function verify(build) {
    if (!builds.has(build.id) || build.started) return;
    let why = 'no answer to verify';

    try {
        why = await route().verify(message(build));
    } catch (err) {
        why = err.message;
    }
    if (build.started) return;
    await stop(build);
    restart(build, why || 'not running');
}

async function start(build) {
    unacknowledged += 1;
    build.attempts += 1;
    let router;

    try {
        router = route();
    } catch (err) {
        // The worker's child exits silently: its message is neither acknowledged nor rejected.
        stats.wedged += 1;

        return;
    }
    try {
        const started = router.start(message(build));

        await started;
        build.posted = Date.now();
        if (!build.started) build.timer = setTimeout(() => verify(build), INIT_TIMEOUT_MS);
        build.executor = router.picked;
        stats.executors[router.picked] = (stats.executors[router.picked] || 0) + 1;
    } catch (err) {
        if (['403', '404'].includes(err.message.substring(0, 3))) {
            stats.lost += 1;
            record(build, `LOST: ${err.message}`);
        } else if (build.attempts <= REPROCESS_LIMIT) {
            setTimeout(() => queue.push(build), DEAD_LETTER_MS);
        } else {
            restart(build, err.message);
        }
    }
    unacknowledged -= 1;
}

function podSeen(type, pod) {
    const build = builds.get(Number(pod.metadata.labels.sdbuild));

    if (!build || type === 'DELETED') return;
    const { phase, startTime, conditions = [] } = pod.status;

    // A pod that does not fit on any node is no sign of a slow machine.
    if (startTime || conditions.some(({ reason }) => reason === 'Unschedulable')) build.taken = true;
    if (!build.started && ['Running', 'Succeeded', 'Failed'].includes(phase)) {
        build.started = new Date().toISOString();
        clearTimeout(build.timer);
        build.timer = setTimeout(() => timeOut(build), BUILD_TIMEOUT_MS);
        stats.running += 1;
        if (pod.spec.runtimeClassName === 'kata' && EXCLUDED.test(build.image)) stats.excluded_on_kata += 1;
    }
    if (['Succeeded', 'Failed'].includes(phase) && !build.over) {
        build.over = true;
        stats.running -= 1;
        stats.succeeded += phase === 'Succeeded' ? 1 : 0;
        stop(build).then(() => record(build, phase));
    }
}

function pickImage() {
    let left = Math.random() * 100;

    return IMAGES.find(([, part]) => (left -= part) < 0)[0];
}

/** RATE builds a second, and fewer on a machine that does not keep up: their starts would time out for no fault of an executor. */
function tick() {
    const now = Date.now();
    const behind = [...builds.values()].some(({ posted, taken }) => posted && !taken && now - posted > MAX_LAG_MS);

    due = behind || builds.size >= MAX_IN_FLIGHT ? 0 : due + (RATE * (now - ticked)) / 1000;
    ticked = now;
    for (; due >= 1 && !stopping; due -= 1) {
        send(pickImage());
        stats.sent += 1;
    }
    while (config && queue.length && unacknowledged < PREFETCH) start(queue.shift());
    stats.in_flight = builds.size;
}

/** Screwdriver's API takes every status update; POST /pinned?executor=NAME&count=N makes builds of jobs with the executor annotation. */
http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, API);

    if (pathname === '/pinned') {
        for (let i = 0; i < Number(searchParams.get('count')); i += 1) {
            send('node:22', { pin: searchParams.get('executor') });
            stats.sent += 1;
            stats.pinned += 1;
        }
    }
    request.resume().on('end', () => response.writeHead(200, { 'Content-Type': 'application/json' }).end('{}'));
}).listen(Number(LAB_API_PORT), '127.0.0.1');

follow(CONFIG, 'fieldSelector=metadata.name%3Dbuildcluster-queue-worker', (type, map) => {
    config = type === 'DELETED' ? '' : map.data['local.yaml'];
});
follow(`/api/v1/namespaces/${NAMESPACE}/pods`, 'labelSelector=tier%3Dbuilds', podSeen);

setInterval(tick, 50);
setInterval(saveStats, 500);
setInterval(() => {
    if (stopping && builds.size === 0) {
        saveStats();
        journal.end(() => process.exit(0));
    }
}, 200);
['SIGTERM', 'SIGINT'].forEach(signal => process.on(signal, () => { stopping = true; }));
process.on('unhandledRejection', err => console.error(err));
