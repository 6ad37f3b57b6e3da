// Asking again and again, while somebody looks and as gently as the server can bear.

const LONGEST_SECONDS = 30;

/**
 * Run `task(signal)` every `seconds` while the page is visible, until `signal` is aborted. After a failure it waits twice
 * as long each time, 30 s at most. `settled(error, nextSeconds)` is told after each run; gives `now`, which runs at once.
 */
export function poll(task, { seconds, signal, settled }) {
  let timer = null;
  let running = false;
  let failures = 0;

  async function run() {
    clearTimeout(timer);
    if (running || signal.aborted || document.hidden) return;
    running = true;
    let failed = null;
    try {
      await task(signal);
      failures = 0;
    } catch (error) {
      failed = error;
      failures += 1;
    }
    running = false;
    if (signal.aborted) return;
    const pause = Math.min(seconds * 2 ** failures, failures ? LONGEST_SECONDS : seconds);
    settled(failed, pause);
    timer = setTimeout(run, pause * 1000);
  }

  document.addEventListener("visibilitychange", run, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  run();
  return { now: run };
}
