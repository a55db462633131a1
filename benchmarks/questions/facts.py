"""Facts that anybody may check, one table a task: what is asked with, and what is right. The wording of questions is in `make`."""

OPPOSITES = """hot cold, big small, early late, open closed, full empty, fast slow, light dark, rich poor, strong weak, wet dry,
young old, high low, hard soft, near far, clean dirty, first last, true false, deep shallow, narrow wide, loud quiet"""
PLURALS = """child children, mouse mice, foot feet, tooth teeth, man men, woman women, goose geese, city cities, box boxes, leaf leaves,
knife knives, baby babies, wolf wolves, dish dishes, hero heroes, story stories, half halves, church churches, ox oxen, life lives"""
PASTS = """go went, see saw, take took, give gave, come came, write wrote, know knew, think thought, bring brought, buy bought, teach taught,
speak spoke, begin began, find found, run ran, eat ate, make made, leave left, hold held, sing sang"""
COMPARATIVES = """good better, bad worse, big bigger, happy happier, easy easier, large larger, hot hotter, far farther, heavy heavier, thin thinner,
simple simpler, early earlier, sad sadder, busy busier, wide wider, strong stronger"""
CAPITALS = """France Paris, Germany Berlin, Italy Rome, Spain Madrid, Japan Tokyo, China Beijing, Russia Moscow, Egypt Cairo, Greece Athens, Portugal Lisbon,
Austria Vienna, Norway Oslo, Sweden Stockholm, Ireland Dublin, Poland Warsaw, Cuba Havana, Kenya Nairobi, Iran Tehran, Peru Lima, Canada Ottawa"""
YOUNG = """dog puppy, cat kitten, cow calf, sheep lamb, horse foal, hen chick, duck duckling, goose gosling, bear cub, frog tadpole, pig piglet,
goat kid, swan cygnet, deer fawn"""
ELEMENTS = """hydrogen H, helium He, carbon C, nitrogen N, oxygen O, sodium Na, iron Fe, gold Au, silver Ag, copper Cu, lead Pb, tin Sn, zinc Zn,
potassium K, calcium Ca, chlorine Cl"""
PLACES = """books library, paintings museum, bread bakery, planes airport, trains station, ships harbor, patients hospital, pupils school, films cinema,
plays theater, medicines pharmacy, letters mailbox, money bank, graves cemetery, wines cellar, judges court"""
SENSES = """see eyes, hear ears, smell nose, taste tongue, chew teeth, breathe lungs, think brain, walk legs, digest stomach, grasp fingers"""
DEFINED = """A person who writes books=an author|A person who flies planes=a pilot|A person who grows crops=a farmer|A person who bakes bread=a baker|
A person who cuts hair=a barber|A person who repairs pipes=a plumber|A person who designs buildings=an architect|A person who treats sick animals=a vet|
A shape with three sides=a triangle|A shape with five sides=a pentagon|A shape with six sides=a hexagon|A shape with eight sides=an octagon|
Frozen water=ice|Water that falls from clouds=rain|A mountain that throws out lava=a volcano|Land with water all around it=an island|
A period of ten years=a decade|A period of a hundred years=a century|The study of living things=biology|The study of stars and planets=astronomy|
The study of numbers and shapes=mathematics|The study of the past=history|A book that explains words=a dictionary|A book of maps=an atlas"""
COMPUTING = """A program that turns source code into machine code=a compiler|A mistake in a program=a bug|A named place that holds a value=a variable|
A value that a function is called with=an argument|A function that calls itself=recursive|A collection without duplicates=a set|A collection that maps keys to values=a dictionary|
A sequence that cannot be changed=a tuple|A function that belongs to a class=a method|A file of Python code that can be imported=a module|
A folder of modules=a package|A statement that repeats a block=a loop|A number without a fractional part=an integer|A sequence of characters=a string|
A value that is either true or false=a boolean|A signal that something went wrong=an exception"""
ENDINGS = """Python .py, C .c, Java .java, JavaScript .js, Rust .rs, HTML .html, JSON .json, Markdown .md, plain-text .txt, YAML .yaml, PNG .png, ZIP .zip"""
COLORS = """snow white, grass green, coal black, blood red, milk white, a lemon yellow, the sky blue, a cherry red, a raven black, a ruby red,
an emerald green, a banana yellow"""
WORDS = """apple river stone cloud bread table green horse light music paper queen train water zebra house lemon night ocean piano"""
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
MONTHS = "January February March April May June July August September October November December"
COUNTABLE = "apple book orange egg table idea house umbrella tree island dog engine river oven"
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
PYTHON = [
    "len('hello')", "abs(-7)", "max(3, 9, 4)", "min(8, 2, 5)", "sum([1, 2, 3])", "round(3.7)", "int('42')", "7 // 2", "7 % 3", "2 ** 5",
    "ord('A')", "len([1, 2, 3, 4])", "len({'a': 1})", "int(9.9)", "divmod(17, 5)", "10 - 3 * 2", "len(range(5))", "sum(range(4))", "-7 // 2", "bool(0) + 1",
]  # fmt: skip
TEXT_METHODS = [
    "'abc'.upper()", "'HELLO'.lower()", "'python'.capitalize()", "' hi '.strip()", "'a-b-c'.replace('-', '+')", "'abc'[::-1]", "'abc' + 'def'", "'ab' * 3",
    "'hello'[1]", "'hello'[-1]", "'hello'[1:3]", "'-'.join(['x', 'y'])", "'title case'.title()", "'xaax'.strip('x')", "chr(97)", "str(5) + '1'",
    "'a,b'.partition(',')[2]", "'Swap'.swapcase()",
]  # fmt: skip
TRUTHS = [
    "3 > 2", "2 + 2 == 5", "'a' in 'cat'", "'z' in 'cat'", "not True", "True and False", "True or False", "bool([])", "bool('x')", "1 == 1.0", "'a' < 'b'",
    "isinstance(3, str)", "all([])", "any([])", "None is None", "'abc'.isdigit()", "'12'.isdigit()", "callable(len)",
]  # fmt: skip
RAISES = {
    "1 / 0": "division by zero", "int('x')": "a text that is no number", "[1, 2][5]": "an index beyond the end of a list",
    "{'a': 1}['b']": "a key that a dictionary lacks", "'a' + 1": "the sum of a text and a number", "undefined_name": "a name that was never assigned",
    "(1).missing": "an attribute that an object lacks", "__import__('no_such_module')": "an import of a module that does not exist",
    "next(iter([]))": "an iterator that has no more items", "open('/no/such/file')": "a file that does not exist", "b'\\xff'.decode()": "bytes that are no valid text", "len(3)": "the length of a number",
    "2.0 ** 5000": "a floating-point result that is too large",
}  # fmt: skip
SORTED = [
    [3, 1, 2],
    [9, 4, 7],
    [5, 8, 1, 6],
    [10, 2, 33],
    [7, 0, 3, 5],
    [12, 11, 10],
    [1, 100, 10],
    [6, 2, 9, 4],
    [20, 5, 15],
    [8, 3, 1],
]
