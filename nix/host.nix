# The Incus host: a NixOS module that prepares a machine for the controller.
#
#   { imports = [ cijob-controller.nixosModules.host ];
#     services.cijob-host = { enable = true; authorizedKeys = [ "ssh-ed25519 AAAA…" ]; }; }
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.cijob-host;
  inherit (lib) mkOption types;
  socket = "/var/lib/incus/unix.socket";

  # With `Sudo` a session is the bridge, or SFTP that only reads, whatever is asked for. It stands in for the user's
  # shell too, as sshd runs a forced command by that.
  gate = pkgs.writeTextFile {
    name = "cijob-ssh-gate";
    executable = true;
    text = ''
      #!${pkgs.bash}/bin/bash -p
      case ''${SSH_ORIGINAL_COMMAND-} in
        'sudo -n socat STDIO UNIX-CONNECT:${socket}')
          exec /run/wrappers/bin/sudo -n /run/current-system/sw/bin/socat STDIO 'UNIX-CONNECT:${socket}' ;;
        internal-sftp* | */sftp-server*) exec ${pkgs.openssh}/libexec/sftp-server -R ;;
      esac
      echo 'this key is for the cijob-controller only' >&2
      exit 1
    '';
  };

  # What a key may do, as deploy/host/prepare-incus-host.sh has it: one socket, and SFTP that only reads. In permitopen,
  # OpenSSH takes a path for a host where it stands in brackets; nothing is listened on at port 1.
  keyOptions =
    if cfg.via == "Socket" then
      ''restrict,port-forwarding,permitopen="[${socket}]:*",permitlisten="127.0.0.1:1",command="internal-sftp -R"''
    else
      ''restrict,command="${gate}"'';
in
{
  options.services.cijob-host = {
    enable = lib.mkEnableOption "an Incus host for cijob-controller";

    user = mkOption {
      type = types.str;
      default = "cijob";
      description = "The user the controller logs in as (IncusHost: spec.connection.ssh.user).";
    };
    authorizedKeys = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = ''
        Public keys of the controller, without options: each is let in for Incus's socket and for SFTP that only reads.
      '';
    };
    via = mkOption {
      type = types.enum [
        "Socket"
        "Sudo"
      ];
      default = "Socket";
      description = ''
        As in the IncusHost. Socket: the user is in incus-admin and SSH forwards Incus's socket. Sudo: the user may run
        `sudo -n socat STDIO UNIX-CONNECT:…` on that socket and nothing else. Either way the user can do anything Incus
        can: the project's restrictions guard against jobs, not against the controller.
      '';
    };

    project = mkOption {
      type = types.str;
      default = "cijob";
      description = "The Incus project of the jobs, restricted (IncusHost: spec.project).";
    };
    storagePool = mkOption {
      type = types.str;
      default = "default";
      description = "The storage pool of the guests' root disks, made with the driver below when it is missing.";
    };
    storageDriver = mkOption {
      type = types.str;
      default = "dir";
      description = "Incus storage driver of that pool.";
    };
    network = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "cijobbr0";
      description = ''
        A bridge of Incus's for the guests alone, made when it is missing: by it they reach the internet, and neither
        each other, nor the host, nor private networks (deploy/host/isolate-network.sh). Null: guests have no network
        card.
      '';
    };
    allowEgress = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "10.1.2.0/24" ];
      description = "Private addresses, networks or ranges that guests may reach all the same.";
    };

    directory = mkOption {
      type = types.str;
      default = "/var/lib/cijob";
      description = "Where snapshots and staged outputs are put.";
    };
    owner = mkOption {
      type = types.str;
      default = "root";
      description = ''
        Whose the directory is: who puts snapshots and staged outputs there. Not the user the controller logs in as, which
        is to read only.
      '';
    };
    allowedSources = mkOption {
      type = types.listOf types.str;
      default = [
        cfg.directory
        "/nix/store"
      ];
      defaultText = lib.literalExpression ''[ directory "/nix/store" ]'';
      description = ''
        Host directories that guests may mount from, symbolic links followed; Incus itself enforces it. Say the same in
        the IncusHost. Staged outputs are links into the store, hence /nix/store.
      '';
    };
    limits = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        instances = "16";
        cpu = "32";
        memory = "64GiB";
      };
      description = "Limits of the whole project, without the `limits.` before their names.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.owner != cfg.user;
        message = "services.cijob-host: the user ${cfg.user}, as whom the controller logs in, must not own ${cfg.directory}";
      }
    ];

    users.groups.${cfg.user} = { };
    users.users.${cfg.user} = {
      isSystemUser = true;
      group = cfg.user;
      # No shell: sshd's own internal-sftp needs none, and the gate is the only program that `Sudo` runs.
      shell = if cfg.via == "Socket" then "${pkgs.shadow}/bin/nologin" else "${gate}";
      extraGroups = lib.optional (cfg.via == "Socket") "incus-admin";
      openssh.authorizedKeys.keys = map (key: "${keyOptions} ${key}") cfg.authorizedKeys;
    };
    services.openssh.enable = lib.mkDefault true;

    environment.systemPackages = lib.optional (cfg.via == "Sudo") pkgs.socat;
    security.sudo.extraRules = lib.optional (cfg.via == "Sudo") {
      users = [ cfg.user ];
      commands = [
        {
          # The backslash is sudoers' own: a colon means something there.
          command = "/run/current-system/sw/bin/socat STDIO UNIX-CONNECT\\:${socket}";
          options = [ "NOPASSWD" ];
        }
      ];
    };

    systemd.tmpfiles.rules = [
      # Readable by all: in a restricted project a container sees the files as nobody's.
      "d ${cfg.directory} 0755 ${cfg.owner} - -"
      "d ${cfg.directory}/snapshots 0755 ${cfg.owner} - -"
      "d ${cfg.directory}/staged 0755 ${cfg.owner} - -"
    ];

    # Rules for networks are not among what a preseed can say.
    systemd.services = lib.optionalAttrs (cfg.network != null) {
      cijob-host-network = {
        description = "Network of the guests of CiJobs";
        wantedBy = [ "multi-user.target" ];
        requires = [ "incus-preseed.service" ];
        after = [ "incus-preseed.service" ];
        # The client is that of the Incus that is installed.
        path = [
          "/run/current-system/sw"
          pkgs.coreutils
          pkgs.gawk
          pkgs.gnugrep
          pkgs.iproute2
        ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
        };
        script = ''
          exec ${pkgs.bash}/bin/bash ${../deploy/host/isolate-network.sh} \
            --network ${lib.escapeShellArg cfg.network} --project ${lib.escapeShellArg cfg.project}${
              lib.concatMapStrings (
                addresses: " --allow-egress ${lib.escapeShellArg addresses}"
              ) cfg.allowEgress
            }
        '';
      };
    };

    # Incus on NixOS wants the nftables firewall.
    networking.nftables.enable = lib.mkDefault true;
    virtualisation.incus = {
      enable = true;
      preseed = {
        storage_pools = [
          {
            name = cfg.storagePool;
            driver = cfg.storageDriver;
          }
        ];
        projects = [
          {
            name = cfg.project;
            description = "CiJobs";
            config = {
              # Images are those of the default project, where nix/incus/import puts them. Profiles are the project's
              # own, so that nobody widens it by a profile of another.
              "features.images" = "false";
              "features.profiles" = "true";
              # Forbids nearly everything; disks by host path are then allowed again, below these directories only.
              restricted = "true";
              "restricted.devices.disk" = "allow";
              "restricted.devices.disk.paths" = lib.concatStringsSep "," cfg.allowedSources;
            }
            // lib.mapAttrs' (limit: value: lib.nameValuePair "limits.${limit}" value) cfg.limits;
          }
        ];
        profiles = [
          {
            name = "default";
            project = cfg.project;
            devices = {
              root = {
                type = "disk";
                path = "/";
                pool = cfg.storagePool;
              };
            };
          }
        ];
      };
    };
  };
}
