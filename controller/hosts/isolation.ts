import type { ConditionClaim } from '../api/conditions.ts';
import type { IncusHostSpec } from '../api/incushost.ts';
import type { Device } from '../incus/commands.ts';
import type { Network, NetworkAcl, NetworkAclRule } from '../incus/schemas.ts';
import { overlap, rangeOf, without, type AddressRange } from './address-ranges.ts';
import { matches } from './grants.ts';
import type { HostFacts } from './host-facts.ts';

/**
 * Networks that no guest should reach unless somebody has said so: private ones (RFC 1918, 6598, 4193), and link-local
 * ones, where clouds serve the host's own credentials (169.254.169.254).
 */
export const privateNetworks: readonly string[] = [
  ...['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '169.254.0.0/16'],
  ...['fc00::/7', 'fe80::/10'],
];

/** A network card that a profile gives to guests. */
interface Card {
  profile: string;
  device: string;
  nic: Device;
}

type Fault = Pick<ConditionClaim, 'reason' | 'message'> & { unknown?: true };

/**
 * Whether guests are kept from each other, from the host and from private networks, by the cards of all profiles that
 * jobs may use. Each card counts by itself: of two profiles with a device of the same name, the later one's is taken whole.
 */
export function isolation(
  { allowedProfiles }: Pick<IncusHostSpec, 'allowedProfiles'>,
  { profiles, networks, acls }: Pick<HostFacts, 'profiles' | 'networks' | 'acls'>,
): ConditionClaim {
  if ('untold' in profiles) return unknown('ProfileNotReadable', profiles.untold);
  const cards = profiles.told
    .filter(({ name }) => allowedProfiles.some((allowed) => matches(name, allowed)))
    .flatMap(({ name: profile, devices }) =>
      Object.entries(devices)
        .filter(([, { type }]) => type === 'nic')
        .map(([device, nic]): Card => ({ profile, device, nic })),
    );
  if (cards.length === 0) {
    return {
      status: 'True',
      reason: 'NoNetwork',
      message: 'no allowed profile gives a guest a network card',
    };
  }
  if ('untold' in networks) return unknown('NetworkNotReadable', networks.untold);
  if ('untold' in acls) return unknown('NetworkNotReadable', acls.untold);
  const faults = cards.flatMap((card) => faultOf(card, networks.told, acls.told) ?? []);
  const [worst] = [...faults.filter((fault) => !fault.unknown), ...faults];
  if (worst) {
    const more = faults.length > 1 ? `; ${faults.length - 1} more network cards have a fault` : '';
    const message = `${worst.message}${more}`.slice(0, 1024);
    return worst.unknown
      ? unknown(worst.reason, message)
      : { status: 'False', reason: worst.reason, message };
  }
  const named = new Set(cards.flatMap((card) => egressOf(networkOf(card, networks.told), acls.told).named));
  const but = named.size === 0 ? '' : `, but for ${[...named].join(', ')}`;
  return {
    status: 'True',
    reason: 'Isolated',
    message:
      `guests reach neither each other, nor the host at the addresses that the ACLs name (those of the last run of isolate-network.sh), nor private networks by their network cards${but}`.slice(
        0,
        1024,
      ),
  };
}

function unknown(reason: string, message: string): ConditionClaim {
  return { status: 'Unknown', reason, message };
}

function networkOf({ nic }: Card, networks: readonly Network[]): Network | undefined {
  const name = nic['network'] ?? nic['parent'];
  return networks.find((network) => network.name === name);
}

const filters = ['security.mac_filtering', 'security.ipv4_filtering', 'security.ipv6_filtering'];

function faultOf(card: Card, networks: readonly Network[], acls: readonly NetworkAcl[]): Fault | undefined {
  const { profile, device, nic } = card;
  const what = `network card ${device} of profile ${profile}`;
  const bridged = nic['network'] !== undefined || nic['nictype'] === 'bridged';
  if (!bridged) {
    return {
      reason: 'NotABridge',
      message: `${what} is of the kind ${nic['nictype'] ?? ''}, not on a bridge`,
    };
  }
  const network = networkOf(card, networks);
  if (!network) {
    const name = nic['network'] ?? nic['parent'] ?? '';
    return {
      reason: 'NetworkNotReadable',
      message: `${what}: Incus lists no network ${name}`,
      unknown: true,
    };
  }
  if (network.type !== 'bridge') {
    return {
      reason: 'NotABridge',
      message: `${what}: network ${network.name} is of the type ${network.type}, not a bridge`,
    };
  }
  if (nic['security.port_isolation'] !== 'true') {
    return {
      reason: 'PortIsolationMissing',
      message: `${what} lets guests reach each other (security.port_isolation)`,
    };
  }
  const missing = filters.filter((filter) => nic[filter] !== 'true');
  if (missing.length > 0) {
    return {
      reason: 'FilteringMissing',
      message: `${what} lets a guest take over addresses of others (${missing.join(', ')})`,
    };
  }
  const { open } = egressOf(network, acls);
  if (open !== undefined) {
    return {
      reason: 'EgressNotRestricted',
      message: `network ${network.name} lets guests reach ${open} (security.acls)`,
    };
  }
  const comer = ingressOf(network, acls);
  return comer === undefined
    ? undefined
    : {
        reason: 'IngressNotRestricted',
        message: `network ${network.name} lets ${comer} reach guests (security.acls)`,
      };
}

/** The ACLs that a network names and that are there. */
function aclsOf({ config }: Network, acls: readonly NetworkAcl[]): readonly NetworkAcl[] {
  const names = (config['security.acls'] ?? '').split(',').map((name) => name.trim());
  return acls.filter(({ name }) => names.includes(name));
}

/** Whoever a network with ACLs lets come to guests; undefined when nobody. Answers to guests do not count. */
function ingressOf(network: Network, acls: readonly NetworkAcl[]): string | undefined {
  // As for egress: Incus refuses what no rule is about, unless the network says otherwise.
  if (network.config['security.acls.default.ingress.action'] === 'allow') return 'anybody';
  const allowing = aclsOf(network, acls)
    .flatMap(({ ingress }) => ingress)
    .find(({ state, action }) => state !== 'disabled' && action.startsWith('allow'));
  return allowing && (allowing.source || 'anybody');
}

/** What a network lets guests reach that it should not, and what of private networks its ACLs allow by name. */
function egressOf(
  network: Network | undefined,
  acls: readonly NetworkAcl[],
): { open?: string; named: readonly string[] } {
  const config = network?.config ?? {};
  const applied = network ? aclsOf(network, acls) : [];
  const rules = applied.flatMap(({ egress }) => egress).filter(({ state }) => state !== 'disabled');
  if (!network?.managed || applied.length === 0) return { open: 'everything', named: [] };
  const refused = rules.filter(({ action }) => action !== 'allow').flatMap(whollyRefused);
  const allowing = rules.filter(({ action }) => action.startsWith('allow'));
  // Incus refuses what no rule is about, unless the network says otherwise.
  const rest = config['security.acls.default.egress.action'] ?? 'reject';
  const allowed =
    rest === 'allow' ? everything : allowing.flatMap(({ destination }) => destinationsOf(destination));
  // The whole subnet: what keeps guests apart on the bridge does not see what comes back to it through the host.
  const own = [config['ipv4.address'], config['ipv6.address']].flatMap((net) => rangeOf(net ?? '') ?? []);
  const guarded = privateNetworks.flatMap((text) => rangeOf(text) ?? []);
  const open = privateNetworks.find((_, index) => {
    const left = without(guarded.slice(index, index + 1), refused);
    return left.length > 0 && without(left, allowed).length === 0;
  });
  if (open !== undefined) return { open, named: [] };
  if (without(own, refused).some((range) => allowed.some((other) => overlap(range, other)))) {
    return { open: "its own addresses, the host's among them", named: [] };
  }
  const named = allowing
    .flatMap(({ destination }) => destination.split(','))
    .map((text) => text.trim())
    .filter((text) => {
      const range = rangeOf(text);
      return !range || without(guarded, [range]).some((left) => !guarded.includes(left));
    });
  return { named };
}

const everything: readonly AddressRange[] = ['0.0.0.0/0', '::/0'].flatMap((text) => rangeOf(text) ?? []);

function destinationsOf(destination: string): readonly AddressRange[] {
  if (destination === '') return everything;
  return destination.split(',').flatMap((text) => rangeOf(text.trim()) ?? []);
}

/** What a rule refuses whatever comes from where, by what protocol. */
function whollyRefused(rule: NetworkAclRule): readonly AddressRange[] {
  const narrow = [rule.source, rule.protocol, rule.source_port, rule.destination_port];
  return narrow.some((part) => part !== '') ? [] : destinationsOf(rule.destination);
}
