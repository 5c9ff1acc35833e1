import { Injectable, MisdirectedException, type CanActivate, type ExecutionContext } from '@nestjs/common';

/** The names of this machine. */
const OWN_HOSTS: readonly string[] = ['127.0.0.1', 'localhost', '[::1]'];

/**
 * Serves the page, whose keys are public, under the names of this machine alone: a name that somebody else has pointed here
 * (DNS rebinding) would have a page of theirs read it in the visitor's browser.
 */
@Injectable()
export class OwnHosts implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    const { headers } = context.switchToHttp().getRequest<{ headers: { host?: string } }>();
    const host = (headers.host ?? '').replace(/:\d+$/, '').toLowerCase();
    if (!OWN_HOSTS.includes(host))
      throw new MisdirectedException('This page is served to this machine alone.');
    return true;
  }
}
