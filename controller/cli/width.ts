/** What a terminal puts into two columns: East Asian wide characters, and emoji. */
const wide =
  /[\p{Emoji_Presentation}\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]/u;
/** What it puts on top of the character before. */
const none = /[\p{M}\p{Cf}]/u;
/** A colour or the like: what `styleText` makes. */
const styling = /\u001b\[[0-9;]*m/g;

/** Columns that a text without line breaks takes on a terminal. */
export function widthOf(text: string): number {
  let width = 0;
  for (const character of text.replaceAll(styling, '')) width += columnsOf(character);
  return width;
}

/** The beginning of a text that fits into so many columns. Its colours stay as they are, those of what is cut, too. */
export function cutTo(text: string, columns: number): string {
  let left = columns;
  let cut = '';
  for (const part of text.split(/(\u001b\[[0-9;]*m)/)) {
    if (part.startsWith('\u001b[')) {
      cut += part;
      continue;
    }
    for (const character of part) {
      left -= columnsOf(character);
      if (left >= 0) cut += character;
      // A narrow one behind a wide one that did not fit must not slip in.
      else left = -Infinity;
    }
  }
  return cut;
}

function columnsOf(character: string): number {
  if (none.test(character)) return 0;
  return wide.test(character) ? 2 : 1;
}
