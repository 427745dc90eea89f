import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  type Sampler,
} from '@opentelemetry/sdk-trace';

/**
 * The sampler that `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` name, which the SDK does not read itself. All of
 * them decide by nothing but the id of the trace and the caller's word, so that all spans of a trace share one fate.
 *
 * @param onTrouble Hears of a value that means nothing; the default is taken for it, as the specification says.
 */
export function samplerOf(
  name: string | undefined,
  argument: string | undefined,
  onTrouble: (why: string) => void,
): Sampler {
  switch (name?.trim() ?? '') {
    case '':
    case 'parentbased_always_on':
      break;
    case 'always_on':
      return new AlwaysOnSampler();
    case 'always_off':
      return new AlwaysOffSampler();
    case 'traceidratio':
      return new TraceIdRatioBasedSampler(ratioOf(argument, onTrouble));
    case 'parentbased_always_off':
      return new ParentBasedSampler({ root: new AlwaysOffSampler() });
    case 'parentbased_traceidratio':
      return new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratioOf(argument, onTrouble)) });
    default:
      onTrouble('OTEL_TRACES_SAMPLER names a sampler that is not known: every trace is taken');
  }
  return new ParentBasedSampler({ root: new AlwaysOnSampler() });
}

function ratioOf(argument: string | undefined, onTrouble: (why: string) => void): number {
  const text = argument?.trim() ?? '';
  if (text === '') return 1;
  const ratio = Number(text);
  if (ratio >= 0 && ratio <= 1) return ratio;
  onTrouble('OTEL_TRACES_SAMPLER_ARG is no number from 0 to 1: every trace is taken');
  return 1;
}
