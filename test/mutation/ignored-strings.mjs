/*
 * Strings that need no test. Kinds and codes are members of literal types: the compiler refuses another one, and the mutant
 * would never have been built. Explanations are written for people, and no decision depends on their words.
 */

const TAGS = new Set(['kind', 'why', 'type', 'outcome', 'handler']);
const CODE = /^IDEMPOTENCY_[A-Z_]+$/;
const PROSE = /\w[^\n]* [^\n]*\w/;

function ignored(path) {
  const { node, parent } = path;
  if (node.type === 'TemplateLiteral') {
    return PROSE.test(node.quasis.map((quasi) => quasi.value.raw).join('')) ? prose : undefined;
  }
  if (node.type !== 'StringLiteral') return undefined;
  if (CODE.test(node.value) || isLiteralType(node, parent)) return literalType;
  return PROSE.test(node.value) ? prose : undefined;
}

function isLiteralType(node, parent) {
  switch (parent.type) {
    case 'SwitchCase':
      return true;
    case 'BinaryExpression':
      return ['===', '!=='].includes(parent.operator);
    case 'ObjectProperty':
      return parent.value === node && TAGS.has(parent.key.name);
    default:
      return false;
  }
}

const literalType = 'a literal type: the compiler would refuse it';
const prose = 'an explanation for people';

export const strykerPlugins = [{ kind: 'Ignore', name: 'strings', value: { shouldIgnore: ignored } }];
