import { expect, test } from 'vitest';
import { whyNotInstallable } from '../../support/debian-packages.ts';

const debian = { ID: 'debian', VERSION_CODENAME: 'bookworm', PRETTY_NAME: 'Debian GNU/Linux 12 (bookworm)' };
const why = (os: Record<string, string>, isRoot: boolean) =>
  whyNotInstallable(['incus-base', 'sudo'], 'to run the demo', os, isRoot);

test('root on Debian, or on a distribution made from it, may install', () => {
  expect(why(debian, true)).toBeUndefined();
  expect(why({ ID: 'ubuntu', ID_LIKE: 'debian' }, true)).toBeUndefined();
});

test('others on Debian are told the command to run, and where Incus is on an older release', () => {
  expect(why(debian, false)).toBe(
    'These packages are needed to run the demo: incus-base, sudo. Run this as root, which installs them, or install ' +
      'them by hand: apt-get install --no-install-recommends incus-base sudo ' +
      '(those your release has not are in its suite bookworm-backports)',
  );
});

test('on another system, the message names what is needed and where this runs', () => {
  const message = why({ ID: 'fedora', ID_LIKE: 'rhel', PRETTY_NAME: 'Fedora Linux 44' }, true);
  expect(message).toContain('incus-base, sudo');
  expect(message).toContain('not Debian but Fedora Linux 44');
  expect(why({}, true)).toContain('not Debian but unknown');
});
