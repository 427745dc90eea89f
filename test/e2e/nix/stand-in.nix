# As much of nixpkgs as nix/ uses, for machines without nixpkgs: enough to evaluate every expression there, and to get
# the wrappers it writes as files. What nixpkgs itself does with the results stays untested here.
let
  inherit (builtins)
    attrNames
    concatStringsSep
    foldl'
    fromJSON
    listToAttrs
    map
    mapAttrs
    replaceStrings
    stringLength
    substring
    toFile
    ;

  package = name: {
    type = "derivation";
    inherit name;
    outPath = "/nix/store/00000000000000000000000000000000-${name}";
  };

  lib = rec {
    inherit attrNames concatStringsSep;
    toInt = fromJSON;
    removeSuffix =
      suffix: text:
      let
        keep = stringLength text - stringLength suffix;
      in
      if substring keep (-1) text == suffix then substring 0 keep text else text;
    concatMapStrings = f: list: concatStringsSep "" (map f list);
    makeLibraryPath = packages: concatStringsSep ":" (map (p: "${p}/lib") packages);
    escapeShellArg = text: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString text)}'";
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    nameValuePair = name: value: { inherit name value; };
    mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: list: if condition then list else [ ];
    optionalAttrs = condition: set: if condition then set else { };

    mkOption = option: option // { _type = "option"; };
    mkEnableOption =
      what:
      mkOption {
        default = false;
        type = "bool";
        description = what;
      };
    mkIf = condition: set: if condition then set else { };
    mkForce = value: value;
    mkDefault = value: value;
    literalExpression = text: text;
    types = {
      str = "str";
      package = "package";
      listOf = type: "list of ${type}";
      attrsOf = type: "attributes of ${type}";
      nullOr = type: "null or ${type}";
      enum = values: "one of ${concatStringsSep " " values}";
    };

    fakeHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    getExe = p: "${p}/bin/${p.name}";
    licenses.asl20 = "Apache-2.0";
    platforms.linux = [ "x86_64-linux" ];
    fileset = {
      unions = paths: paths;
      toSource = { root, fileset }: builtins.deepSeq (map builtins.pathExists fileset) (toString root);
    };
  };

  # The defaults of a module's options, with the user's values over them.
  withDefaults =
    options: values:
    if options ? _type then
      if values == null then options.default else values
    else
      mapAttrs (
        name: option: withDefaults option (if values == null then null else values.${name} or null)
      ) options;

  pkgs =
    listToAttrs (
      map (name: lib.nameValuePair name (package name)) [
        "bash"
        "bashInteractive"
        "cacert"
        "coreutils"
        "curl"
        "diffutils"
        "findutils"
        "gawk"
        "git"
        "gnugrep"
        "gnused"
        "gnutar"
        "gzip"
        "iproute2"
        "jq"
        "makeWrapper"
        "nodejs"
        "nodejs_24"
        "openssh"
        "openssl"
        "postgresql"
        "procps"
        "python3"
        "shadow"
        "socat"
        "util-linux"
        "which"
        "xz"
      ]
    )
    // {
      inherit lib;
      llvmPackages.libclang.lib = package "libclang-lib";
      writeTextFile =
        {
          name,
          text,
          executable ? false,
        }:
        package name
        // {
          inherit text executable;
          outPath = toFile name text;
        };
      writeScriptBin = name: text: package name // { inherit text; };
      runCommand = name: _: script: package name // { inherit script; };
      stdenvNoCC.mkDerivation = arguments: package (arguments.pname) // arguments;
      dockerTools.buildLayeredImage = arguments: arguments;
    };

  callPackage =
    file: overrides:
    let
      f = import file;
      known = pkgs // {
        inherit (pkgs) lib;
      };
    in
    f (
      builtins.intersectAttrs (builtins.functionArgs f) known // overrides
    );

  evaluateModule =
    file: values:
    let
      module = import file;
      call =
        config:
        module {
          inherit config lib pkgs;
          modulesPath = "/nixpkgs/nixos/modules";
        };
      # A default may speak of other options, so the configuration is made of itself, as in nixpkgs.
      configuration = withDefaults (call configuration).options values;
    in
    call configuration;
in
{
  inherit lib pkgs callPackage evaluateModule;
}
