"""widowx_controller_node: action chunks in, joint goals and gripper PWM for the Interbotix driver out.

Topics and services of controller_node.py; in `/<robot_name>/joint_states`; out `/<robot_name>/commands/joint_group` and
`joint_single`; asks the driver's services at start and, for the servos' errors, once a second. Adds the service
`~/reboot_motors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from std_srvs.srv import Trigger

from instructvla_ros.control import WidowXController
from instructvla_ros.nodes.controller_node import ControllerNode, ControllerParts
from instructvla_ros.nodes.driver_client import DriverClient
from instructvla_ros.nodes.managed import main_of
from instructvla_ros.nodes.settings import CONTROLLER, controller_config, driver_settings, watch_config


class WidowXControllerNode(ControllerNode):
    """`ControllerNode` of a WidowX-250s."""

    def __init__(self, **options: Any) -> None:
        super().__init__("widowx_controller_node", CONTROLLER, **options)
        self.create_service(Trigger, "~/reboot_motors", self._on_reboot)

    def make(self, values: Mapping[str, Any]) -> ControllerParts:
        settings = driver_settings(values)
        controller = WidowXController(controller_config(values))
        driver = DriverClient(self, settings, lambda: controller.resting_pwm)
        rates = settings.control_rate_hz, settings.state_rate_hz
        return ControllerParts(controller, driver, *rates, watch_config(values))

    def _on_reboot(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not isinstance(self._driver, DriverClient):
            return self._refuse(response, f"controller is {self.state_label}. {self.problem}".strip())
        if not self._driver.problem:
            return self._refuse(response, "no servo reports an error; nothing to reboot")
        self._driver.reboot()
        response.success = True
        response.message = "servos in error are rebooting; hold the arm, then call the reset service"
        return response


def main() -> None:
    """Entry point."""
    main_of(WidowXControllerNode)


if __name__ == "__main__":
    main()
