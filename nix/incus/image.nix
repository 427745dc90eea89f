# The guest: a NixOS virtual machine for Incus that keeps docs/guest-contract.md. A NixOS module.
#
#   { imports = [ cijob-controller.nixosModules.guest ]; pikaci.guest.extraPackages = [ pkgs.ffmpeg ]; }
#
# The disk and its metadata come from NixOS's own module for Incus machines; `nix/incus/import` builds and imports them.
{
  config,
  lib,
  pkgs,
  modulesPath,
  ...
}:

let
  cfg = config.pikaci.guest;

  # Not writeShellScriptBin, which would put a store path in the first line: the runner is the same file in every guest.
  runner = pkgs.writeScriptBin "pikaci-incus-run" (builtins.readFile ./pikaci-incus-run);

  # What staged wrappers find in /run/current-system/sw/bin (guest interface 1), and what the runner itself needs.
  basePackages = with pkgs; [
    bash
    cacert
    coreutils
    curl
    diffutils
    findutils
    gawk
    git
    gnugrep
    gnused
    gnutar
    gzip
    jq
    nodejs
    openssl
    postgresql
    procps
    python3
    util-linux
    which
    xz
  ];
in
{
  imports = [ (modulesPath + "/virtualisation/incus-virtual-machine.nix") ];

  options.pikaci.guest = {
    extraPackages = lib.mkOption {
      type = lib.types.listOf lib.types.package;
      default = [ ];
      description = "What jobs find in /run/current-system/sw beyond the guest interface.";
    };
    runtimeLibraries = lib.mkOption {
      type = lib.types.listOf lib.types.package;
      default = [ ];
      description = "Libraries whose store paths staged wrappers name in LD_LIBRARY_PATH: kept in the image's store.";
    };
  };

  config = {
    # What the controller and this runner agree on; docs/guest-contract.md has the versions.
    # With a mode it is a regular file, not a link into the store: the controller reads it from outside, where Incus
    # follows no link.
    environment.etc."pikaci/guest-contract" = {
      text = builtins.readFile ./guest-contract;
      mode = "0644";
    };
    # "1": docs/guest-contract.md says what that promises. The runner refuses payloads that need another.
    environment.etc."pikaci/guest-interface".text = builtins.readFile ./guest-interface;

    environment.systemPackages = basePackages ++ cfg.extraPackages ++ [ runner ];
    # PGSHAREDIR points there.
    environment.pathsToLink = [ "/share/postgresql" ];
    # Reachable from the system, so in the image, although nothing links to them.
    system.extraDependencies = cfg.runtimeLibraries;

    users.users.pikaci = {
      isNormalUser = true;
      uid = 1000;
      group = "users";
      home = "/home/pikaci";
      createHome = true;
    };
    users.groups.users.gid = 100;

    systemd.tmpfiles.rules = [
      "d /workspace 0755 root root -"
      "d /workspace/snapshot 0755 root root -"
      "d /staged 0755 root root -"
      "d /staged/linux-rust 0755 root root -"
      "d /staged/linux-rust/workspace-deps 0755 root root -"
      "d /staged/linux-rust/workspace-build 0755 root root -"
      # Root's and sticky: the job writes here, but cannot touch the log and the result.
      "d /artifacts 1777 root root -"
      "d /cargo-home 0755 pikaci users -"
      "d /cargo-target 0755 pikaci users -"
    ];

    # Ready means: the agent serves, so an exec will be heard, and the directories above are there. The socket is made
    # by the agent, hence a path unit and no ordering.
    systemd.paths.pikaci-incus-ready = {
      description = "Wait for the Incus agent";
      wantedBy = [ "multi-user.target" ];
      after = [ "systemd-tmpfiles-setup.service" ];
      pathConfig.PathExists = "/dev/incus/sock";
    };
    systemd.services.pikaci-incus-ready = {
      description = "Tell Incus that this guest takes jobs";
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        Restart = "on-failure";
        RestartSec = "200ms";
        ExecStart = lib.concatStringsSep " " [
          "${pkgs.curl}/bin/curl --silent --show-error --fail --unix-socket /dev/incus/sock"
          "--request PATCH --header Content-Type:application/json"
          ''--data '{"state":"Ready"}' http://incus/1.0''
        ];
      };
    };

    virtualisation.incus.agent.enable = true;
    services.openssh.enable = lib.mkForce false;

    # An address when there is a network, and no waiting for one: a guest without a network card is as good.
    networking.hostName = lib.mkDefault "pikaci-guest";
    networking.useDHCP = lib.mkForce false;
    networking.useNetworkd = true;
    networking.firewall.enable = lib.mkDefault false;
    systemd.network.enable = true;
    systemd.network.wait-online.enable = lib.mkForce false;
    systemd.network.networks."10-incus" = {
      matchConfig.Name = [
        "en*"
        "eth*"
      ];
      networkConfig.DHCP = "yes";
      linkConfig.RequiredForOnline = false;
    };

    # Boot time: no menu, nothing kept of the journal, no documentation to build and carry.
    boot.loader.timeout = lib.mkForce 0;
    boot.kernelParams = [ "quiet" ];
    services.journald.storage = "volatile";
    documentation.enable = lib.mkForce false;
    systemd.services.systemd-udev-settle.enable = false;

    system.stateVersion = lib.mkDefault "24.11";
  };
}
