/** What a person must set right. Its message is all they see. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
