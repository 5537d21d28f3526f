"""Closed word lists shared by the kinds. Words meant to be copied are capitalised:
the tokenizer keeps a capitalised word free of its leading space, so it has one id everywhere."""

NAMES = (
    "Lina",
    "Omar",
    "Vera",
    "Hugo",
    "Nora",
    "Ivan",
    "Rosa",
    "Karl",
    "Dana",
    "Luis",
    "Maya",
    "Piet",
    "Sara",
    "Tomas",
    "Uma",
    "Wim",
    "Yara",
    "Zeno",
    "Anna",
    "Boris",
    "Clara",
    "Emil",
    "Greta",
    "Jonas",
)
CITIES = (
    "Oslo",
    "Lima",
    "Cairo",
    "Rome",
    "Delhi",
    "Paris",
    "Quito",
    "Tokyo",
    "Madrid",
    "Vienna",
    "Dublin",
    "Athens",
    "Kyoto",
    "Havana",
    "Lagos",
    "Berlin",
)
COLORS = ("Red", "Blue", "Green", "Pink", "Gray", "Gold", "Black", "White")
JOBS = ("Baker", "Nurse", "Pilot", "Farmer", "Singer", "Judge", "Tailor", "Miner")
PETS = ("Cat", "Dog", "Horse", "Parrot", "Rabbit", "Turtle", "Goat", "Duck")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
THINGS = ("apples", "books", "cards", "coins", "cups", "shells", "stamps", "stones")
COPIED = NAMES + CITIES + COLORS + JOBS + PETS
