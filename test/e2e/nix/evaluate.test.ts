import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run, runOk } from '../../support/command.ts';
import { ensurePackages } from '../../support/debian-packages.ts';
import { clearAway } from '../../support/left-under.ts';
import { makeTempDir } from '../../support/temp-dir.ts';
import { evaluate, nixDir, nixPackages, parse } from './nix.ts';

let dir: string;
beforeAll(async () => {
  await ensurePackages(nixPackages, { reason: 'to evaluate the Nix expressions' });
  dir = await makeTempDir('nix');
}, 600_000);
afterAll(() => clearAway(dir));

const files = async () =>
  (await readdir(nixDir, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));

describe('the Nix files', () => {
  test('parse', async () => {
    const expressions = (await files()).filter((file) => file.endsWith('.nix'));
    expect(expressions.length).toBeGreaterThanOrEqual(6);
    for (const file of expressions) await parse(dir, file);
  });

  test('know nothing of a mounted host store', async () => {
    for (const file of await files()) {
      const text = await readFile(file, 'utf8');
      expect(text).not.toContain('/mnt/pikaci');
      expect(text).not.toContain('PIKACI_STAGED_HOST_NIX_STORE_ROOT');
      expect(text).not.toContain('PIKACI_REMOTE_LINUX_VM_INCUS_MODE');
    }
  });

  test('and the scripts beside them pass shellcheck', async () => {
    const scripts = ['pikaci-incus-run', 'import'].map((name) => join(nixDir, 'incus', name));
    await ensurePackages(['shellcheck'], { reason: 'to check the shell scripts' });
    expect(await runOk('shellcheck', scripts)).toBe('');
  }, 300_000);
});

describe('the guest image', () => {
  const evaluated = (expression: string) =>
    evaluate(dir, `let m = evaluateModule ${nixDir}/incus/image.nix {}; in ${expression}`);

  test('has the runner, unchanged, among the programs of the system', async () => {
    const runner = await readFile(join(nixDir, 'incus/pikaci-incus-run'), 'utf8');
    expect(runner.startsWith('#!/run/current-system/sw/bin/bash -p\n')).toBe(true);
    expect(
      await evaluated(
        '(builtins.head (builtins.filter (p: p.name == "pikaci-incus-run") m.config.environment.systemPackages)).text',
      ),
    ).toBe(runner);
  });

  test('has what staged wrappers and the runner use', async () => {
    const names = await evaluated('map (p: p.name) m.config.environment.systemPackages');
    expect(names).toEqual(
      expect.arrayContaining([
        'bash',
        'coreutils',
        'gnugrep',
        'util-linux',
        'nodejs',
        'python3',
        'postgresql',
        'git',
        'cacert',
      ]),
    );
    expect(await evaluated('m.config.environment.pathsToLink')).toEqual(['/share/postgresql']);
  });

  test('can be extended', async () => {
    const names = (await evaluate(
      dir,
      `map (p: p.name) (evaluateModule ${nixDir}/incus/image.nix { pikaci.guest.extraPackages = [ pkgs.makeWrapper ]; })
        .config.environment.systemPackages`,
    )) as string[];
    expect(names).toContain('makeWrapper');
  });

  test('lays out the directories of the contract', async () => {
    expect(await evaluated('m.config.systemd.tmpfiles.rules')).toEqual([
      'd /workspace 0755 root root -',
      'd /workspace/snapshot 0755 root root -',
      'd /staged 0755 root root -',
      'd /staged/linux-rust 0755 root root -',
      'd /staged/linux-rust/workspace-deps 0755 root root -',
      'd /staged/linux-rust/workspace-build 0755 root root -',
      'd /artifacts 1777 root root -',
      'd /cargo-home 0755 pikaci users -',
      'd /cargo-target 0755 pikaci users -',
    ]);
    expect(await evaluated('m.config.users')).toMatchObject({
      users: { pikaci: { uid: 1000, group: 'users', home: '/home/pikaci' } },
      groups: { users: { gid: 100 } },
    });
    expect(await evaluated('m.config.environment.etc."pikaci/guest-interface".text')).toBe('1\n');
  });

  test('states its contract in a regular file, as a link is not followed from outside the guest', async () => {
    expect(await evaluated('m.config.environment.etc."pikaci/guest-contract"')).toEqual({
      text: '2\n',
      mode: '0644',
    });
  });

  test('is a machine for Incus that waits for nothing and says when it is ready', async () => {
    expect(await evaluated('m.imports')).toEqual([
      '/nixpkgs/nixos/modules/virtualisation/incus-virtual-machine.nix',
    ]);
    expect(await evaluated('m.config.virtualisation.incus.agent.enable')).toBe(true);
    expect(await evaluated('m.config.services.openssh.enable')).toBe(false);
    expect(await evaluated('m.config.systemd.network.wait-online.enable')).toBe(false);
    expect(await evaluated('m.config.boot.loader.timeout')).toBe(0);
    expect(await evaluated('m.config.systemd.paths.pikaci-incus-ready.pathConfig')).toEqual({
      PathExists: '/dev/incus/sock',
    });
    expect(await evaluated('m.config.systemd.services.pikaci-incus-ready.serviceConfig.ExecStart')).toMatch(
      /curl .*--fail --unix-socket \/dev\/incus\/sock --request PATCH .*--data '\{"state":"Ready"\}' http:\/\/incus\/1\.0$/,
    );
  });
});

describe('the Incus host', () => {
  const evaluated = async (settings: string) =>
    (await evaluate(
      dir,
      `(evaluateModule ${nixDir}/host.nix { services.cijob-host = { enable = true; ${settings} }; }).config`,
    )) as {
      users: {
        users: Record<
          string,
          { extraGroups: string[]; shell: string; openssh: { authorizedKeys: { keys: string[] } } }
        >;
      };
      assertions: { assertion: boolean }[];
      security: { sudo: { extraRules: unknown[] } };
      virtualisation: { incus: { preseed: Record<string, unknown[]> } };
      systemd: {
        tmpfiles: { rules: string[] };
        services: Record<string, { script: string; after: string[] }>;
      };
    };

  test('restricts what guests may mount to the allowed directories', async () => {
    const { virtualisation } = await evaluated('limits = { instances = "16"; memory = "64GiB"; };');
    expect(virtualisation.incus.preseed['projects']).toMatchObject([
      {
        name: 'cijob',
        config: {
          'features.profiles': 'true',
          restricted: 'true',
          'restricted.devices.disk': 'allow',
          'restricted.devices.disk.paths': '/var/lib/cijob,/nix/store',
          'limits.instances': '16',
          'limits.memory': '64GiB',
        },
      },
    ]);
    expect(virtualisation.incus.preseed['profiles']).toEqual([
      { name: 'default', project: 'cijob', devices: { root: { type: 'disk', path: '/', pool: 'default' } } },
    ]);
  });

  test('gives guests a network card by the script that keeps them apart, and none unless it is asked for', async () => {
    expect((await evaluated('')).systemd.services).toEqual({});
    const settings = 'network = "jobs0"; allowEgress = [ "10.1.2.0/24" "10.1.3.4" ];';
    const { systemd, virtualisation } = await evaluated(settings);
    const { script, after } = systemd.services['cijob-host-network']!;
    expect(after).toEqual(['incus-preseed.service']);
    const words = script.replaceAll('\\\n', ' ').trim().split(/\s+/);
    expect(words.slice(3)).toEqual([
      ...['--network', "'jobs0'", '--project', "'cijob'"],
      ...['--allow-egress', "'10.1.2.0/24'", '--allow-egress', "'10.1.3.4'"],
    ]);
    const told = await run('bash', [words[2] ?? '', '--help']);
    expect(told).toMatchObject({ code: 0, stdout: expect.stringContaining('--allow-egress') as string });
    // No card comes before the rules do.
    expect(JSON.stringify(virtualisation.incus.preseed)).not.toContain('nic');
  });

  test('gives the directories that guests mount from to root, and never to the user who is to read only', async () => {
    const { systemd, assertions } = await evaluated('');
    expect(systemd.tmpfiles.rules).toEqual([
      'd /var/lib/cijob 0755 root - -',
      'd /var/lib/cijob/snapshots 0755 root - -',
      'd /var/lib/cijob/staged 0755 root - -',
    ]);
    expect(assertions).toMatchObject([{ assertion: true }]);
    expect((await evaluated('owner = "ci";')).systemd.tmpfiles.rules).toContain(
      'd /var/lib/cijob 0755 ci - -',
    );
    expect((await evaluated('owner = "cijob";')).assertions).toMatchObject([{ assertion: false }]);
  });

  test('lets a key do no more than what the controller does', async () => {
    const keys = 'authorizedKeys = [ "ssh-ed25519 AAAA controller" "ssh-ed25519 BBBB" ];';
    const { cijob: socket } = (await evaluated(keys)).users.users;
    const options =
      'restrict,port-forwarding,permitopen="[/var/lib/incus/unix.socket]:*",permitlisten="127.0.0.1:1",command="internal-sftp -R"';
    expect(socket?.openssh.authorizedKeys.keys).toEqual([
      `${options} ssh-ed25519 AAAA controller`,
      `${options} ssh-ed25519 BBBB`,
    ]);
    expect(socket?.shell).toMatch(/\/nologin$/);

    const { cijob: sudo } = (await evaluated(`via = "Sudo"; ${keys}`)).users.users;
    const gate = sudo?.shell ?? '';
    expect(sudo?.openssh.authorizedKeys.keys).toEqual([
      `restrict,command="${gate}" ssh-ed25519 AAAA controller`,
      `restrict,command="${gate}" ssh-ed25519 BBBB`,
    ]);
    const text = await readFile(gate, 'utf8');
    expect(text).toContain("'sudo -n socat STDIO UNIX-CONNECT:/var/lib/incus/unix.socket')\n");
    for (const asked of ['id', 'sudo -n id', '']) {
      const ran = await run('bash', ['-p', gate, '-c', 'id'], { env: { SSH_ORIGINAL_COMMAND: asked } });
      expect(ran).toMatchObject({ code: 1, stdout: '' });
    }
  });

  test('lets the user in by the socket, or by sudo, and never by both', async () => {
    const socket = await evaluated('');
    expect(socket.users.users['cijob']?.extraGroups).toEqual(['incus-admin']);
    expect(socket.security.sudo.extraRules).toEqual([]);
    const sudo = await evaluated('via = "Sudo";');
    expect(sudo.users.users['cijob']?.extraGroups).toEqual([]);
    expect(sudo.security.sudo.extraRules).toEqual([
      {
        users: ['cijob'],
        commands: [
          {
            command: '/run/current-system/sw/bin/socat STDIO UNIX-CONNECT\\:/var/lib/incus/unix.socket',
            options: ['NOPASSWD'],
          },
        ],
      },
    ]);
  });

  test('is nothing while it is not enabled', async () => {
    expect(await evaluate(dir, `(evaluateModule ${nixDir}/host.nix { }).config`)).toEqual({});
  });
});

describe('the controller', () => {
  test('is packed with both its names', async () => {
    const phase = await evaluate(dir, `(callPackage ${nixDir}/package.nix { }).installPhase`);
    expect(phase).toContain('"$out/bin/cijob" --add-flags "$out/lib/cijob-controller/controller/main.ts"');
    expect(phase).toContain('ln -s cijob "$out/bin/kubectl-cijob"');
  });

  test('is an image without root', async () => {
    expect(
      await evaluate(dir, `callPackage ${nixDir}/oci.nix { cijob = pkgs.git // { version = "1"; }; }`),
    ).toMatchObject({
      name: 'cijob-controller',
      config: { Entrypoint: ['/bin/cijob'], Cmd: ['controller'], User: '65532:65532' },
    });
  });

  test('comes by a flake, with the guest and the modules', async () => {
    const platform = 'pkgs // { inherit callPackage; stdenv.hostPlatform.system = "x"; }';
    const nixpkgs = `{ legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: ${platform});
      lib = lib // { nixosSystem = _: { config.system.build = { metadata = "m"; qemuImage = "q"; }; }; }; }`;
    expect(
      await evaluate(
        dir,
        `let f = (import ${nixDir}/flake.nix).outputs { self = f; nixpkgs = ${nixpkgs}; };
          in { packages = builtins.mapAttrs (_: builtins.attrNames) f.packages;
               modules = builtins.attrNames f.nixosModules; linuxRust = builtins.isFunction f.lib.linuxRust;
               guest = f.packages.x86_64-linux.guest-disk; }`,
      ),
    ).toEqual({
      packages: {
        'x86_64-linux': ['cijob', 'default', 'guest-disk', 'guest-metadata', 'oci'],
        'aarch64-linux': ['cijob', 'default', 'guest-disk', 'guest-metadata', 'oci'],
      },
      modules: ['guest', 'host'],
      linuxRust: true,
      guest: 'q',
    });
  });
});
