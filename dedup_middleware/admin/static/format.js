// Numbers and times as people write them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const clocks = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const days = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const number = (value) => (value >= 1e6 ? compact : whole).format(value ?? 0);
export const plural = (count, word, many = `${word}s`) => `${number(count)} ${count === 1 ? word : many}`;
export const clock = (at) => clocks.format(at * 1000);
export const digest = (key) => String(key).slice(0, 8);

export function moment(at) {
  const date = new Date(at * 1000);
  return date.toDateString() === new Date().toDateString() ? clock(at) : `${days.format(date)}, ${clock(at)}`;
}

export function rate(value) {
  return value > 0 && value < 10 ? value.toFixed(1) : number(value);
}

export function percent(part, digits = 1) {
  const value = (part ?? 0) * 100;
  if (value > 0 && value < 0.05) return "< 0.1";
  return value > 0 && value < 100 ? value.toFixed(digits) : value.toFixed(0);
}

// [figure, unit]: a big figure shows its unit smaller.
export function duration(seconds) {
  const value = Math.max(0, seconds ?? 0);
  if (value === 0) return ["0", "s"];
  if (value < 0.001) return [(value * 1e6).toFixed(0), "µs"];
  if (value < 0.01) return [(value * 1000).toFixed(1), "ms"];
  if (value < 1) return [(value * 1000).toFixed(0), "ms"];
  if (value < 120) return [value < 10 ? value.toFixed(2) : value.toFixed(1), "s"];
  if (value < 7200) return [(value / 60).toFixed(1), "min"];
  if (value < 172_800) return [(value / 3600).toFixed(1), "h"];
  return [(value / 86_400).toFixed(1), "days"];
}

export const time = (seconds) => duration(seconds).join(" ");

// A time that is left or gone, without more digits than anybody reads.
export const briefly = (seconds) => (seconds < 120 ? `${+Math.max(0, seconds).toFixed(1)} s` : time(seconds));

export function ago(seconds) {
  if (seconds < 5) return "now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 129_600 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86_400)} days ago`;
}

export function size(bytes) {
  if (bytes == null) return ["?", ""];
  for (const [unit, one] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    const value = bytes / one;
    if (value >= 1) return [value >= 100 ? value.toFixed(0) : value.toFixed(1).replace(/\.0$/, ""), unit];
  }
  return [number(bytes), "B"];
}

export const bytes = (value) => size(value).join(" ");
