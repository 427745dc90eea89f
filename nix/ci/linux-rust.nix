# Staged outputs of a Rust workspace: what a CiJob mounts at /staged/linux-rust, built once on the host and used by many
# jobs. A function; it returns { workspaceDeps, workspaceBuild, … }, both to be realised and mounted as they are.
#
# Wrappers are plain text with interpreters named by their path in the guest. Nothing refers to the host's store through
# a mount, and nothing is rewritten at run time: store paths in LD_LIBRARY_PATH and PATH are paths in the image's own
# store (pikaci.guest.runtimeLibraries), so image and payload are to be built from the same nixpkgs.
{
  pkgs,
  lib ? pkgs.lib,

  # Names the derivations.
  name ? "workspace",

  # Built dependencies and built test executables. Their trees are copied, links followed: a link into the host's store
  # would lead nowhere in the guest.
  cargoArtifacts,
  testArtifacts,

  # What the executables link to at run time, and PostgreSQL's and libclang's packages.
  runtimeLibraries ? [ ],
  postgresql ? pkgs.postgresql,
  libclang ? pkgs.llvmPackages.libclang.lib,

  # lane -> one of
  #   { script = "cargo test --offline"; }       bash text
  #   { manifest = "tests/unit.manifest"; }      runs each executable that file of testArtifacts lists; args = [ … ]
  #   { python = "scripts/smoke.py"; }           a file of testArtifacts, run by the guest's python3; args = [ … ]
  #   { node = "scripts/smoke.mjs"; }            the same with the guest's node
  # each becomes bin/run-<lane>.
  lanes,
}:

let
  guestSystemBin = "/run/current-system/sw/bin";
  guestBash = "${guestSystemBin}/bash";
  guestBashShebang = "#!${guestBash}";
  guestNode = "${guestSystemBin}/node";
  guestPython = "${guestSystemBin}/python3";
  guestBuild = "/staged/linux-rust/workspace-build";

  guestInterface = lib.toInt (lib.removeSuffix "\n" (builtins.readFile ../incus/guest-interface));

  # Sourced by every wrapper: bash text.
  stagedRuntimeEnv = ''
    export PATH="${postgresql}/bin:${guestSystemBin}:$PATH"
    staged_runtime_ld="${lib.makeLibraryPath runtimeLibraries}"
    if [ -d /run/opengl-driver/lib ]; then
      staged_runtime_ld="/run/opengl-driver/lib''${staged_runtime_ld:+:$staged_runtime_ld}"
    fi
    export LD_LIBRARY_PATH="$staged_runtime_ld''${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export LIBCLANG_PATH="${libclang}/lib"
  '';

  # run-test-manifest FILE [ARGUMENT…]: runs each executable FILE lists, one a line, with the arguments, and stops at
  # the first failure with its code. A list that is missing or empty is a failure: nothing tested is nothing passed.
  manifestRunner = ''
    ${guestBashShebang}
    set -euo pipefail
    manifest=$1
    shift
    ran=0
    # The list comes by a descriptor of its own: an executable that reads its input must not eat the list.
    while IFS= read -r executable <&3 || [ -n "$executable" ]; do
      case $executable in
        "" | "#"*) continue ;;
        /*) ;;
        *) executable=${guestBuild}/$executable ;;
      esac
      echo "[pikaci] running $executable"
      code=0
      "$executable" "$@" </dev/null 3<&- || code=$?
      if [ "$code" -ne 0 ]; then
        echo "[pikaci] $executable exited with $code" >&2
        exit "$code"
      fi
      ran=$((ran + 1))
    done 3<"$manifest"
    if [ "$ran" -eq 0 ]; then
      echo "[pikaci] $manifest lists no executable" >&2
      exit 1
    fi
    echo "[pikaci] $ran executables passed"
  '';

  # The last line of a lane's wrapper. A program's own arguments may follow those of the lane.
  laneCommand =
    lane: spec:
    let
      arguments = lib.concatMapStrings (argument: " ${lib.escapeShellArg argument}") (spec.args or [ ]);
      run = program: file: ''exec ${program} ${lib.escapeShellArg "${guestBuild}/${file}"}${arguments} "$@"'';
    in
    if spec ? script then
      spec.script
    else if spec ? manifest then
      run "${guestBuild}/bin/run-test-manifest" spec.manifest
    else if spec ? python then
      run guestPython spec.python
    else if spec ? node then
      run guestNode spec.node
    else
      throw "lane ${lane}: give one of script, manifest, python, node";

  # Executable text rather than writeShellScript: that would put the build's own bash in the first line.
  wrapper =
    lane: text:
    pkgs.writeTextFile {
      name = lane;
      executable = true;
      inherit text;
    };

  laneWrapper =
    lane: spec:
    wrapper "run-${lane}" ''
      ${guestBashShebang}
      set -euo pipefail
      ${stagedRuntimeEnv}
      ${laneCommand lane spec}
    '';

  # Read by the runner before a job starts: it refuses a payload that needs another guest.
  payloadManifest =
    kind:
    pkgs.writeTextFile {
      name = "pikaci-payload.json";
      text = builtins.toJSON {
        schema_version = 1;
        guest_interface = guestInterface;
        inherit name kind;
        lanes = lib.optionals (kind == "workspace-build") (lib.attrNames lanes);
      };
    };

  stage = kind: artifacts: extra: pkgs.runCommand "${name}-${kind}" { } ''
    mkdir -p "$out"
    cp --recursive --dereference --no-preserve=ownership ${artifacts}/. "$out/"
    chmod -R u+w "$out"
    install -m444 ${payloadManifest kind} "$out/pikaci-payload.json"
    ${extra}
  '';
in
{
  inherit stagedRuntimeEnv guestInterface;

  workspaceDeps = stage "workspace-deps" cargoArtifacts "";

  workspaceBuild = stage "workspace-build" testArtifacts ''
    install -Dm555 ${wrapper "run-test-manifest" manifestRunner} "$out/bin/run-test-manifest"
    ${lib.concatStringsSep "\n" (
      lib.mapAttrsToList (
        lane: spec: ''install -Dm555 ${laneWrapper lane spec} "$out/bin/run-${lane}"''
      ) lanes
    )}
  '';
}
