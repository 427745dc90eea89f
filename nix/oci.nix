# The controller as an OCI image: no shell, no root, nothing to write but what the pod mounts.
{
  dockerTools,
  cacert,
  cijob,
}:

dockerTools.buildLayeredImage {
  name = "cijob-controller";
  tag = cijob.version;
  contents = [
    cacert
    cijob
  ];
  config = {
    Entrypoint = [ "/bin/cijob" ];
    Cmd = [ "controller" ];
    User = "65532:65532";
    WorkingDir = "/";
    Env = [
      "NODE_ENV=production"
      "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt"
    ];
  };
}
