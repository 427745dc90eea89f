/** One line of a chart: times in seconds since the epoch, ascending. */
export interface Series {
  name: string;
  points: readonly (readonly [number, number])[];
}

export interface DrawnPanel {
  title: string;
  /** `stat` shows the last value, anything else lines over time. */
  type: string;
  unit: string;
  /** Grafana's grid: 24 columns, rows of 30 pixels. */
  gridPos: { x: number; y: number; w: number; h: number };
  series: readonly Series[];
}

const column = 50;
const row = 32;
const colours = ['#1f77b4', '#ff7f0e', '#2ca02c', '#d62728', '#9467bd', '#8c564b', '#e377c2', '#7f7f7f'];

/** A dashboard as an SVG picture: each panel where Grafana has it, with the data that Prometheus had. */
export function drawDashboard(title: string, panels: readonly DrawnPanel[]): string {
  const height = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * row + 40;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="${height}" viewBox="0 0 1200 ${height}" ` +
      `font-family="sans-serif" font-size="11" fill="#333">`,
    `<rect width="1200" height="${height}" fill="#fff"/>`,
    `<text x="8" y="26" font-size="18">${escaped(title)}</text>`,
    ...panels.map(drawPanel),
    '</svg>\n',
  ].join('\n');
}

function drawPanel({ title, type, unit, gridPos, series }: DrawnPanel): string {
  const [x, y] = [gridPos.x * column, gridPos.y * row + 40];
  const [width, height] = [gridPos.w * column - 8, gridPos.h * row - 8];
  const frame =
    `<rect x="4" width="${width}" height="${height}" rx="3" fill="none" stroke="#ccc"/>` +
    `<text x="12" y="16" font-weight="bold">${escaped(title)}</text>`;
  const body = type === 'stat' ? drawStat(series, unit, height) : drawLines(series, unit, width, height);
  return `<g transform="translate(${x} ${y})">${frame}${body}</g>`;
}

function drawStat(series: readonly Series[], unit: string, height: number): string {
  const values = series.map(({ points }) => shown(points.at(-1)?.[1] ?? NaN, unit));
  const text = values.length === 0 ? 'no data' : values.join(' / ');
  return `<text x="12" y="${height / 2 + 20}" font-size="28">${escaped(text)}</text>`;
}

function drawLines(series: readonly Series[], unit: string, width: number, height: number): string {
  const points = series.flatMap((one) => one.points);
  if (points.length === 0) return `<text x="12" y="40">no data</text>`;
  const times = points.map(([time]) => time);
  const [from, to] = [Math.min(...times), Math.max(...times)];
  const top = Math.max(...points.map(([, value]) => value)) || 1;
  const area = { left: 60, top: 28, width: width - 250, height: height - 56 };
  const at = ([time, value]: readonly [number, number]) =>
    `${(area.left + ((time - from) / (to - from || 1)) * area.width).toFixed(1)},` +
    (area.top + (1 - value / top) * area.height).toFixed(1);
  const bottom = area.top + area.height;
  const axis =
    `<path d="M${area.left} ${area.top}V${bottom}H${area.left + area.width}" fill="none" stroke="#999"/>` +
    `<text x="${area.left - 4}" y="${area.top + 4}" text-anchor="end">${shown(top, unit)}</text>` +
    `<text x="${area.left - 4}" y="${bottom}" text-anchor="end">0</text>` +
    `<text x="${area.left}" y="${bottom + 16}">0 s</text>` +
    `<text x="${area.left + area.width}" y="${bottom + 16}" text-anchor="end">${Math.round(to - from)} s</text>`;
  const lines = series.map((one, index) => {
    const colour = colours[index % colours.length] ?? '#333';
    const entry = Math.floor((area.height + 20) / 14) > index;
    const [, last] = one.points.at(-1) ?? [0, NaN];
    const legend = entry
      ? `<text x="${width - 180}" y="${area.top + 6 + index * 14}" fill="${colour}">${escaped(one.name.slice(0, 22))} ${shown(last, unit)}</text>`
      : '';
    return `<polyline points="${one.points.map(at).join(' ')}" fill="none" stroke="${colour}" stroke-width="1.5"/>${legend}`;
  });
  return axis + lines.join('');
}

/** A value as people read it in a chart. */
function shown(value: number, unit: string): string {
  if (Number.isNaN(value)) return '–';
  if (unit === 'percentunit') return `${(value * 100).toFixed(0)} %`;
  if (unit === 'bytes') return `${(value / 2 ** 20).toFixed(0)} MiB`;
  const digits = value >= 100 ? 0 : value >= 1 ? 1 : 3;
  const text = Number.isInteger(value) ? String(value) : value.toFixed(digits);
  return unit === 's' ? `${text} s` : unit === 'ops' ? `${text}/s` : text;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
