/** A node of a weight-balanced tree, never changed once it is made. */
interface Node<T> {
  readonly item: T;
  readonly left: Tree<T>;
  readonly right: Tree<T>;
  readonly size: number;
}
type Tree<T> = Node<T> | undefined;

/**
 * Items in the order of `compare`, each at most once. Adding, deleting and both directions between an item and its
 * place cost O(log n). A weight-balanced tree: its sizes keep it in balance and are what places are counted with
 * (parameters as in Hirai and Yamamoto, "Balancing weight-balanced trees", 2011).
 */
export class OrderedSet<T> implements Iterable<T> {
  readonly #compare: (a: T, b: T) => number;
  #root: Tree<T>;

  /** @param compare A total order: 0 only for what counts as the same item. */
  constructor(compare: (a: T, b: T) => number) {
    this.#compare = compare;
  }

  get size(): number {
    return sizeOf(this.#root);
  }

  get first(): T | undefined {
    return this.at(0);
  }

  /** Adds an item, in place of one that counts as the same. */
  add(item: T): void {
    this.#root = this.#added(this.#root, item);
  }

  /** Deletes an item, if it is there. */
  delete(item: T): void {
    this.#root = this.#deleted(this.#root, item);
  }

  /** How many items come before this one, be it in the set or not. */
  countBefore(item: T): number {
    let count = 0;
    let node = this.#root;
    while (node) {
      if (this.#compare(item, node.item) > 0) {
        count += sizeOf(node.left) + 1;
        node = node.right;
      } else node = node.left;
    }
    return count;
  }

  /** The item at a place, counted from 0; undefined beyond the end. */
  at(place: number): T | undefined {
    let rest = place;
    let node = this.#root;
    while (node) {
      const before = sizeOf(node.left);
      if (rest === before) return node.item;
      if (rest < before) node = node.left;
      else {
        rest -= before + 1;
        node = node.right;
      }
    }
    return undefined;
  }

  /** The items in order, as they are when the iteration begins. */
  [Symbol.iterator](): Iterator<T> {
    return inOrder(this.#root);
  }

  #added(node: Tree<T>, item: T): Node<T> {
    if (!node) return nodeOf(item, undefined, undefined);
    const order = this.#compare(item, node.item);
    if (order === 0) return nodeOf(item, node.left, node.right);
    return order < 0
      ? balanced(node.item, this.#added(node.left, item), node.right)
      : balanced(node.item, node.left, this.#added(node.right, item));
  }

  #deleted(node: Tree<T>, item: T): Tree<T> {
    if (!node) return undefined;
    const order = this.#compare(item, node.item);
    if (order < 0) return balanced(node.item, this.#deleted(node.left, item), node.right);
    if (order > 0) return balanced(node.item, node.left, this.#deleted(node.right, item));
    return joined(node.left, node.right);
  }
}

function sizeOf(node: Tree<unknown>): number {
  return node ? node.size : 0;
}

function nodeOf<T>(item: T, left: Tree<T>, right: Tree<T>): Node<T> {
  return { item, left, right, size: sizeOf(left) + sizeOf(right) + 1 };
}

/** Whether a side is so much heavier than the other that the tree must be turned. */
function isHeavy(side: Tree<unknown>, other: Tree<unknown>): boolean {
  return sizeOf(side) + 1 > 3 * (sizeOf(other) + 1);
}

/** Whether turning once is enough for a heavy side: its inner child is light. */
function turnsOnce(inner: Tree<unknown>, outer: Tree<unknown>): boolean {
  return sizeOf(inner) + 1 < 2 * (sizeOf(outer) + 1);
}

/** A node of two trees of which one has grown or shrunk by one item. */
function balanced<T>(item: T, left: Tree<T>, right: Tree<T>): Node<T> {
  if (right && isHeavy(right, left)) return turnedLeft(item, left, right);
  if (left && isHeavy(left, right)) return turnedRight(item, left, right);
  return nodeOf(item, left, right);
}

function turnedLeft<T>(item: T, left: Tree<T>, right: Node<T>): Node<T> {
  const inner = right.left;
  if (!inner || turnsOnce(inner, right.right)) {
    return nodeOf(right.item, nodeOf(item, left, inner), right.right);
  }
  return nodeOf(inner.item, nodeOf(item, left, inner.left), nodeOf(right.item, inner.right, right.right));
}

function turnedRight<T>(item: T, left: Node<T>, right: Tree<T>): Node<T> {
  const inner = left.right;
  if (!inner || turnsOnce(inner, left.left)) {
    return nodeOf(left.item, left.left, nodeOf(item, inner, right));
  }
  return nodeOf(inner.item, nodeOf(left.item, left.left, inner.left), nodeOf(item, inner.right, right));
}

/** One tree of two, all of whose items are before and after the deleted one. */
function joined<T>(left: Tree<T>, right: Tree<T>): Tree<T> {
  if (!right) return left;
  const [least, rest] = withoutLeast(right);
  return balanced(least, left, rest);
}

function withoutLeast<T>(node: Node<T>): [T, Tree<T>] {
  if (!node.left) return [node.item, node.right];
  const [least, left] = withoutLeast(node.left);
  return [least, balanced(node.item, left, node.right)];
}

function* inOrder<T>(node: Tree<T>): Generator<T, undefined> {
  if (!node) return;
  yield* inOrder(node.left);
  yield node.item;
  yield* inOrder(node.right);
}
