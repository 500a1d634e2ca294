import pytest

from sapwood.cli.naming import arguments, job_name
from sapwood.cli.problems import Misused


@pytest.mark.parametrize(
    "text",
    [
        "WelcomeEmail",
        "welcomeEmail",
        "welcome-email",
        "welcome_email",
        "welcome email",
        "WelcomeEmailJob",
        "welcome_email_job",
        "welcome-email-job",
    ],
)
def test_every_spelling_of_a_name_gives_one_result(text):
    assert job_name(text) == job_name("WelcomeEmail")
    assert (job_name(text).camel, job_name(text).snake) == ("WelcomeEmail", "welcome_email")


@pytest.mark.parametrize(
    ("text", "camel", "snake"),
    [("HTTPFetch", "HTTPFetch", "http_fetch"), ("SyncCRM", "SyncCRM", "sync_crm"), ("report2", "Report2", "report2")],
)
def test_a_name_keeps_its_capitals(text, camel, snake):
    assert (job_name(text).camel, job_name(text).snake) == (camel, snake)


@pytest.mark.parametrize("text", ["", "Job", "2fa", "class", "import", "Exception", "a.b", "a/b", "../x", "a;b"])
def test_a_name_that_python_cannot_have_is_refused(text):
    with pytest.raises(Misused):
        job_name(text)


@pytest.mark.parametrize(
    ("text", "name", "annotation", "default"),
    [
        ("url", "url", "str", None),
        ("user_id:int", "user_id", "int", None),
        ("user_id:Integer", "user_id", "int", None),
        ("locale:str=en", "locale", "str", '"en"'),
        ("n:int=-3", "n", "int", "-3"),
        ("ratio:float=1", "ratio", "float", "1.0"),
        ("on:bool=yes", "on", "bool", "True"),
        ("raw:bytes=ab", "raw", "bytes", 'b"ab"'),
        ("ids:list[int]", "ids", "list[int]", None),
        ("names:dict[str, list[date]]", "names", "dict[str, list[date]]", None),
        ("day:date=2030-01-02", "day", "date", "date(2030, 1, 2)"),
        ("price:decimal=1.50", "price", "Decimal", 'Decimal("1.50")'),
        ("since:date=None", "since", "date | None", "None"),
        ("since:date|None", "since", "date | None", None),
        ("name:str=", "name", "str", '""'),
        ('name:str=it\'s "x"', "name", "str", "'it\\'s \"x\"'"),
    ],
)
def test_an_argument_is_read(text, name, annotation, default):
    (argument,) = arguments([text])
    assert (argument.name, argument.annotation, argument.default) == (name, annotation, default)


@pytest.mark.parametrize(
    "texts",
    [
        ["x:nosuch"],
        ["x:os.system"],
        ["x:int=seven"],
        ["x:float=nan"],
        ["x:bool=maybe"],
        ["x:bytes=ü"],
        ["x:list[int]=1"],
        ["x:Decimal=x"],
        ["x:int["],
        ["x:set[list[int]]"],
        ["class:int"],
        ["self:int"],
        ["1x:int"],
        [":int"],
        ["x:int", "x:str"],
        ["x:int=1", "y:int"],
    ],
)
def test_an_argument_that_python_or_the_store_cannot_have_is_refused(texts):
    with pytest.raises(Misused):
        arguments(texts)
