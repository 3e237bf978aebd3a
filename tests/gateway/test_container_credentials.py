"""How fast containers may ask for credentials."""

from moorage.gateway.container_credentials import Pace


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_container_that_asks_without_end_is_slowed_down_and_no_other() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert sum(pace.admits("127.18.0.2") for _ in range(2000)) == 500
    assert pace.admits("127.18.0.3")
    clock.now += 1.0
    assert sum(pace.admits("127.18.0.2") for _ in range(2000)) == 50
    clock.now += 60.0
    assert sum(pace.admits("127.18.0.2") for _ in range(2000)) == 500


def test_addresses_are_forgotten() -> None:
    clock = Clock()
    pace = Pace(clock)
    for number in range(50_000):
        clock.now += 0.1
        assert pace.admits(f"127.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(pace._full_at) <= 10_000
