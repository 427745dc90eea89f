# The controller and its command line. Node runs the TypeScript as it is, so this packs sources and their dependencies.
{
  lib,
  stdenvNoCC,
  makeWrapper,
  nodejs_24,
  cacert,

  # Of the dependencies as npm installs them. The lock file names versions and their checksums but no addresses, which
  # nixpkgs' own npm helpers need; so npm fetches them, in a derivation whose result is fixed. Nix tells the right hash
  # when it does not fit.
  npmDepsHash ? lib.fakeHash,
}:

let
  manifest = builtins.fromJSON (builtins.readFile ../package.json);
  pname = manifest.name;
  inherit (manifest) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../controller
      ../crds
      ../package.json
      ../package-lock.json
    ];
  };

  dependencies = stdenvNoCC.mkDerivation {
    pname = "${pname}-dependencies";
    inherit version src;
    nativeBuildInputs = [
      nodejs_24
      cacert
    ];
    buildPhase = ''
      export HOME=$TMPDIR
      npm ci --omit=dev --ignore-scripts --no-audit --no-fund
    '';
    installPhase = ''
      cp -R node_modules "$out"
    '';
    dontFixup = true;
    outputHashMode = "recursive";
    outputHash = npmDepsHash;
  };
in
stdenvNoCC.mkDerivation {
  inherit pname version src;
  nativeBuildInputs = [ makeWrapper ];
  dontBuild = true;
  installPhase = ''
    runHook preInstall
    mkdir -p "$out/lib/${pname}" "$out/bin"
    cp -R controller crds package.json "$out/lib/${pname}/"
    ln -s ${dependencies} "$out/lib/${pname}/node_modules"
    makeWrapper ${lib.getExe nodejs_24} "$out/bin/cijob" --add-flags "$out/lib/${pname}/controller/main.ts"
    # The same program as a kubectl plugin.
    ln -s cijob "$out/bin/kubectl-cijob"
    runHook postInstall
  '';
  meta = {
    inherit (manifest) description;
    license = lib.licenses.asl20;
    mainProgram = "cijob";
    platforms = lib.platforms.linux;
  };
}
