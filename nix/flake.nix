{
  description = "cijob-controller: the guest image, staged outputs, the Incus host and the controller itself";

  inputs.nixpkgs.url = "nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEach = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      guest =
        pkgs:
        (nixpkgs.lib.nixosSystem {
          system = pkgs.stdenv.hostPlatform.system;
          modules = [ self.nixosModules.guest ];
        }).config.system.build;
    in
    {
      nixosModules.guest = ./incus/image.nix;
      nixosModules.host = ./host.nix;

      # linuxRust { inherit pkgs; cargoArtifacts = …; testArtifacts = …; lanes = { … }; }
      lib.linuxRust = import ./ci/linux-rust.nix;

      packages = forEach (pkgs: rec {
        default = cijob;
        cijob = pkgs.callPackage ./package.nix { };
        oci = pkgs.callPackage ./oci.nix { inherit cijob; };
        # The two halves of an Incus image; nix/incus/import puts them together.
        guest-metadata = (guest pkgs).metadata;
        guest-disk = (guest pkgs).qemuImage;
      });
    };
}
