import { styleText } from 'node:util';
import type { Phase } from '../api/cijob-status.ts';
import { widthOf } from './width.ts';

/** Lines of a table with aligned columns, as kubectl prints them. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => (widths[column] = Math.max(widths[column] ?? 0, widthOf(cell))));
  }
  return rows.map((row) =>
    row
      .map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - widthOf(cell)))
      .join('   ')
      .trimEnd(),
  );
}

const colours: Partial<Record<Phase, 'green' | 'red' | 'yellow' | 'cyan'>> = {
  Succeeded: 'green',
  Failed: 'red',
  Cancelled: 'yellow',
  Running: 'cyan',
};

/** Colours the phase in a line, on a terminal that wants colours (NO_COLOR, TERM=dumb and the like are obeyed). */
export function colourPhase(line: string, phase: Phase | undefined): string {
  const colour = phase && colours[phase];
  if (colour === undefined) return line;
  return line.replace(phase ?? '', (word) => styleText(colour, word, { stream: process.stdout }));
}

export function bold(text: string): string {
  return styleText('bold', text, { stream: process.stdout });
}

/** `12s`, `5m`, `3h`, `2d`: an age as kubectl shows it, roughly. */
export function age(from: string | undefined, now: number): string {
  if (from === undefined) return '';
  const seconds = Math.max(0, Math.floor((now - Date.parse(from)) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}
