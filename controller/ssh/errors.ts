/** Why a machine could not be reached or used through SSH: reasons for a condition, each with its own remedy. */
export type SshErrorReason =
  /** No TCP connection, or it broke. */
  | 'Unreachable'
  /** The server shows another host key than the pinned ones. */
  | 'HostKeyMismatch'
  /** The server does not accept our key. */
  | 'KeyRefused'
  /** Our private key cannot be read or parsed. */
  | 'KeyUnusable'
  /** sshd does not let us forward to unix sockets. */
  | 'ForwardingForbidden'
  /** Nothing listens on Incus's socket, or we may not open it. */
  | 'SocketUnavailable'
  /** sudo refuses, or what it should run is not there. */
  | 'SudoRefused'
  /** The server offers no SFTP. */
  | 'SftpUnavailable';

export class SshError extends Error {
  override readonly name = 'SshError';
  readonly reason: SshErrorReason;

  constructor(reason: SshErrorReason, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}
